"""Encryption with age (age-encryption.org/v1), to and by the same Ed25519 keys that sign.

age takes such keys in the form that OpenSSH gives them; they are brought into it in memory, for one call.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mcp_bus.errors import NoKey, Unverified
from mcp_bus.identity import process
from mcp_bus.model import MAX_CONTENT
from mcp_bus.wire import MAX_READERS

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN, END = "-----BEGIN AGE ENCRYPTED FILE-----\n", "\n-----END AGE ENCRYPTED FILE-----\n"
# The library adds a stanza that means nothing, so that readers learn to pass such over; another may add more.
MAX_STANZAS = MAX_READERS + 8
MAX_HEADER = 256 * MAX_STANZAS
_KIND = b"ssh-ed25519"


def encrypt(data: bytes, publics: Sequence[bytes]) -> str:
    """Return bytes encrypted to public keys, as ASCII armour: `age -d` opens it, too.

    Raises:
        NoKey: what it needs is not installed.
    """
    age = _age()
    made: bytes = age.encrypt(data, [age.ssh.Recipient.from_str(_public(key)) for key in publics], armored=True)
    return made.decode("ascii")


def decrypt(text: str, privates: Sequence[bytes]) -> bytes:
    """Return what private keys open of a text (rule EN3).

    Raises:
        Unverified: nothing, for it was altered, or encrypted to others.
        NoKey: what it needs is not installed.
    """
    age = _age()
    if len(text) > MAX_CONTENT or not (text.startswith(BEGIN) and text.endswith(END)) or not _is_short(text):
        what = "what is encrypted in it is not in the one form there is"
        raise Unverified(what)
    try:
        made: bytes = age.decrypt(text.encode(), [age.ssh.Identity.from_buffer(_private(key)) for key in privates])
    except age.DecryptError as error:
        what = f"what is encrypted in it cannot be opened with the key it names: {str(error)[:200]}"
        raise Unverified(what) from None
    return made


def _is_short(text: str) -> bool:
    """Tell whether as many keys are named as there may be: the library takes a minute to read some thousand of them."""
    start = "".join(text[len(BEGIN) : len(BEGIN) + MAX_HEADER].splitlines())
    try:
        found = base64.b64decode(start[: len(start) // 4 * 4].partition("-")[0])
    except ValueError:
        return False
    header, end, _ = found.partition(b"\n---")
    return bool(end) and header.count(b"\n->") <= MAX_STANZAS


def _public(key: bytes) -> str:
    """Return a public key as a line of OpenSSH (RFC 8709, section 4)."""
    parts = (len(part).to_bytes(4, "big") + part for part in (_KIND, key))
    return f"{_KIND.decode()} {base64.b64encode(b''.join(parts)).decode()}"


def _private(key: bytes) -> bytes:
    """Return a private key as OpenSSH keeps one without a passphrase."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  as in `jws`
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  as in `jws`

    return ed25519.Ed25519PrivateKey.from_private_bytes(key).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _age() -> Any:  # noqa: ANN401  a module
    try:
        import pyrage  # noqa: PLC0415  an extra, and a few milliseconds
    except ImportError:
        msg = "encryption needs the package pyrage, which is not installed"
        raise NoKey(msg, hint=f"install it: {process.to_install('pyrage')}") from None
    return pyrage
