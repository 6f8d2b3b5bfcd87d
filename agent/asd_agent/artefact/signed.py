"""The bytes format of a signed artefact.

    asd-artefact 1\\n
    <signature, base64>\\n
    <header, JSON on one line>\\n
    <payload>

The signature (Ed25519, RFC 8032) covers the first line and the header; the header holds size and sha256 of the payload.
So an agent knows who sent it, and how long it will be, before it takes the first byte of the payload.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from asd_agent.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAGIC = b"asd-artefact 1\n"


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact is, and for whom."""

    kind: Literal["baseline", "bundle"]
    agent: str = "*"  # id, or a pattern with * of the agents that may take it
    machine: str = ""  # of a baseline
    version: str  # of the baseline; of a bundle: its checksum
    size: Annotated[int, Meta(ge=1)]  # bytes of the payload
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]  # of the payload


class Signed(msgspec.Struct, frozen=True):
    """A header as it was signed, byte by byte, and its signature."""

    header: str
    signature: str  # base64


def new_key(path: Path) -> str:
    """Write a new private key (PEM, readable by its owner only); returns the public one. Raises ArtefactError."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(pem)
    except FileExistsError as exc:
        raise ArtefactError(f"{path}: is there already, and agents may trust it: name another file") from exc
    except OSError as exc:
        raise ArtefactError(f"{path}: cannot be written ({exc.strerror})") from exc
    return public_key(key)


def load_key(path: Path) -> Ed25519PrivateKey:
    """Raises ArtefactError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as exc:
        raise ArtefactError(f"{path}: cannot be read ({exc.strerror}); `asd-agent fleet key` makes one") from exc
    except (ValueError, TypeError) as exc:
        raise ArtefactError(f"{path}: not a private key without a password ({exc})") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ArtefactError(f"{path}: not an Ed25519 key; `asd-agent fleet key` makes one")
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """As `artefacts.public_key` of the agents wants it: base64 of its 32 bytes."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def sign(key: Ed25519PrivateKey, payload: bytes, *, kind: Literal["baseline", "bundle"], version: str,
         machine: str = "", agent: str = "*") -> bytes:  # fmt: skip
    """The whole artefact."""
    header = Header(
        kind=kind, agent=agent, machine=machine, version=version, size=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
    )  # fmt: skip
    encoded = msgspec.json.encode(header)
    signature = base64.b64encode(key.sign(MAGIC + encoded))
    return prefix(Signed(encoded.decode(), signature.decode())) + payload


def prefix(signed: Signed) -> bytes:
    """What stands before the payload."""
    return MAGIC + f"{signed.signature}\n{signed.header}\n".encode()


def read(path: Path) -> tuple[Header, Signed, bytes]:
    """An artefact's header, what was signed, and the payload; its signature is not checked. Raises ArtefactError."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ArtefactError(f"{path}: cannot be read ({exc.strerror})") from exc
    try:
        magic, signature, encoded, payload = data.split(b"\n", 3)
        header = msgspec.json.decode(encoded, type=Header)
        signed = Signed(encoded.decode(), signature.decode())
    except (ValueError, msgspec.MsgspecError) as exc:
        raise ArtefactError(f"{path}: not a signed artefact; `asd-agent fleet pack-...` makes one") from exc
    if magic + b"\n" != MAGIC or not fits(header, payload):
        raise ArtefactError(f"{path}: damaged, or of another version: pack it anew")
    return header, signed, payload


def verified(signed: Signed, public: str) -> Header:
    """The header, when the holder of the private key has signed it. Raises ArtefactError."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as exc:
        raise UsageError("signed artefacts need cryptography: pip install 'asd-agent[fleet]'") from exc
    encoded = signed.header.encode()
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signed.signature, validate=True), MAGIC + encoded)
        return msgspec.json.decode(encoded, type=Header)
    except (InvalidSignature, ValueError) as exc:
        raise ArtefactError("the signature is not that of artefacts.public_key: the artefact is refused") from exc


def fits(header: Header, payload: bytes) -> bool:
    """Whether a payload is the one that was signed."""
    return len(payload) == header.size and hashlib.sha256(payload).hexdigest() == header.sha256
