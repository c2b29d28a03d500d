"""Keys of agents: public ones as JWK (RFC 8037), named by their thumbprint (RFC 7638), and how one follows another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.signing import jws

if TYPE_CHECKING:
    from collections.abc import Mapping

ROTATION = "mcp-bus-rotation+jws"
MAX_ROTATION = 8192
# Characters of a thumbprint that people are shown.
SHORT = 8
KID = r"[A-Za-z0-9_-]{43}\Z"


class Key(NamedTuple):
    """A key of this user's own: whose it is, since when, and both of its parts."""

    agent: str
    created: int
    private: bytes
    public: bytes

    @property
    def kid(self) -> str:
        """The thumbprint of its public part."""
        return kid_of(self.public)


class Rotation(NamedTuple):
    """What an old key says of the one that follows it."""

    agent: str
    old: str
    public: bytes
    at: int


def jwk(public: bytes) -> dict[str, str]:
    """Return a public key as JWK."""
    return {"crv": "Ed25519", "kty": "OKP", "x": jws.b64(public)}


def kid_of(public: bytes) -> str:
    """Return a public key's thumbprint."""
    # The members it is made of, in this order and without blanks (RFC 7638, section 3).
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{jws.b64(public)}"}}'
    return jws.b64(hashlib.sha256(text.encode()).digest())


def short(kid: str) -> str:
    """Return what people are shown of a thumbprint."""
    return kid[:SHORT]


def public_of(found: Mapping[str, Any]) -> bytes:
    """Return the key that a JWK is; members that do not matter are passed over.

    Raises:
        InvalidRequest: it is no public Ed25519 key.
    """
    try:
        is_fit = (found.get("kty"), found.get("crv")) == ("OKP", "Ed25519") and isinstance(found.get("x"), str)
        public = jws.unb64(found["x"]) if is_fit else b""
    except ValueError:
        public = b""
    if "d" in found:
        msg = "this is a private key, which nobody else may have"
        raise InvalidRequest(msg, hint="`mcp-bus key export` prints the public one; replace this one with `key rotate`")
    if len(public) != jws.PUBLIC:
        msg = "this is no public Ed25519 key as JWK"
        raise InvalidRequest(msg, hint="give what `mcp-bus key export` prints")
    return public


def rotation(old: Key, new: Key) -> str:
    """Return what the old key signs so that whoever trusts it may trust the new one."""
    head = jws.b64(wire.dumps({"alg": jws.ALG, "kid": old.kid, "typ": ROTATION})[:-1])
    said = {"agent": old.agent, "at": new.created, "jwk": jwk(new.public)}
    body = f"{head}.{jws.b64(wire.dumps(said)[:-1])}"
    return f"{body}.{jws.b64(jws.sign(old.private, body.encode()))}"


def read_rotation(text: str) -> tuple[Rotation, str, bytes]:
    """Read a rotation; return it, and what was signed with which signature.  Whether that holds is another question.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        head, said, tail = text.split(".")
        header, claims, signature = wire.loads(jws.unb64(head)), wire.loads(jws.unb64(said)), jws.unb64(tail)
        kinds = [type(claims.get(name)) for name in ("agent", "at", "jwk")]
        is_one = header == {"alg": jws.ALG, "kid": header.get("kid"), "typ": ROTATION} and kinds == [str, int, dict]
    except (ValueError, CorruptRecord):
        is_one = False
    if not is_one:
        msg = "this is neither a key nor what follows one"
        raise InvalidRequest(msg, hint="give what `mcp-bus key export` or `mcp-bus key rotate` prints")
    made = Rotation(claims["agent"], str(header["kid"]), public_of(claims["jwk"]), claims["at"])
    return made, f"{head}.{said}", signature
