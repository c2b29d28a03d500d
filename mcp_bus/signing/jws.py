"""A signature in its own file: a JWS in compact form whose payload is left out (RFC 7515, appendix F).

The payload is the bytes as they are stored.  What the header says is compared with what the reader knows
already; nothing in it chooses how it is checked.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, NoKey, Unverified
from mcp_bus.identity import process

if TYPE_CHECKING:
    from collections.abc import Mapping

# The one algorithm there is (RFC 8037), whatever a header says.
ALG = "EdDSA"
TYPE = "mcp-bus+jws"
# Header members of our own, which every reader must understand.
CRITICAL = ("bus", "channel", "use", "id", "to", "exp", "iat")
_MEMBERS: dict[str, object] = dict.fromkeys(("alg", "kid", "typ", *CRITICAL), str)
_MEMBERS |= {"crit": list, "jwk": dict, "exp": int, "iat": int}
MAX_SEAL = 8192
SIGNATURE, PUBLIC = 64, 32


class Seal(NamedTuple):
    """A signature as it was read: its header, and the bytes that it needs to be checked."""

    header: Mapping[str, Any]
    head: bytes
    signature: bytes


def b64(data: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Read base64url without padding, in its one spelling.

    Raises:
        ValueError: it is something else, or spelt otherwise.
    """
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None
    if b64(data) != text:
        msg = "it is spelt otherwise than base64url spells it"
        raise ValueError(msg)
    return data


def make(private: bytes, header: Mapping[str, Any], payload: bytes) -> bytes:
    """Return a signature of some bytes: `header..signature`."""
    head = b64(wire.dumps({"alg": ALG, "typ": TYPE, "crit": list(CRITICAL), **header})[:-1]).encode()
    return head + b".." + b64(sign(private, head + b"." + b64(payload).encode())).encode()


def read(data: bytes) -> Seal:
    """Read a signature; whether it holds is another question.

    Raises:
        Unverified: it is none of the only form there is.
    """
    if len(data) > MAX_SEAL:
        _refuse(f"it has more than {MAX_SEAL} bytes")
    try:
        head, empty, tail = data.decode("ascii").split(".")
        header, signature = wire.loads(unb64(head)), unb64(tail)
    except (ValueError, CorruptRecord) as error:
        _refuse(str(error))
    if empty or len(signature) != SIGNATURE:
        _refuse("it is not a header, nothing, and a signature")
    if header.keys() != _MEMBERS.keys() or any(type(header[name]) is not kind for name, kind in _MEMBERS.items()):
        _refuse("its header has other members than it must have")
    if (header["alg"], header["typ"], tuple(header["crit"])) != (ALG, TYPE, CRITICAL):
        _refuse(f"it is not {TYPE} with {ALG}")
    return Seal(header, head.encode(), signature)


def holds(public: bytes, seal: Seal, payload: bytes) -> bool:
    """Tell whether a signature is of these bytes, by this key."""
    return check(public, seal.signature, seal.head + b"." + b64(payload).encode())


def _refuse(why: str) -> NoReturn:
    what = f"its signature is none: {why[:200]}"
    raise Unverified(what) from None


# --- Ed25519 itself: loaded by whoever signs or checks, and by nobody else ------------------------------


def new() -> tuple[bytes, bytes]:
    """Return a new key, private and public."""
    return _pair(_keys().Ed25519PrivateKey.generate())


def public_of(private: bytes) -> bytes:
    """Return the public part of a private key.

    Raises:
        ValueError: it is none.
    """
    return _pair(_keys().Ed25519PrivateKey.from_private_bytes(private))[1]


def sign(private: bytes, data: bytes) -> bytes:
    """Return the signature of some bytes."""
    made: bytes = _keys().Ed25519PrivateKey.from_private_bytes(private).sign(data)
    return made


def check(public: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether a signature holds."""
    keys = _keys()
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  as `_keys`

    try:
        keys.Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pair(key: Any) -> tuple[bytes, bytes]:  # noqa: ANN401  its type is loaded with the module
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def _keys() -> Any:  # noqa: ANN401  a module
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  tens of milliseconds
    except ImportError:
        msg = "signing needs the package cryptography, which is not installed"
        raise NoKey(msg, hint=f"install it: {process.to_install('cryptography')}") from None
    return ed25519
