"""The root's key on disk: beside the node's own keys, or taken away in a file under a passphrase.

An exported key is one PEM file: the key in PKCS #8, encrypted (RFC 5958, RFC 8018), and the certificates of
the mesh's roots up to its own, so that it signs on a machine that is in no mesh. It is read by the command
that needs it, and stays in that command's memory: no agent sees it, and no argument list.
"""

from __future__ import annotations

import contextvars
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from meshpeer.app.state import KEYS, load_root, write_key
from meshpeer.core.errors import EnvironmentFault, LocalFault, PeerFault, Refused
from meshpeer.core.identity.certificates import Authority, mesh_id_of, public_key_of
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.identity.line import check_line
from meshpeer.core.ids import MeshId

PASSPHRASE_LENGTH_MIN = 8
EXPORT_BYTES_MAX = 64 * 1024
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class RootKey:
    """A root's key and the line of roots that ends in its certificate."""

    seed: bytes = field(repr=False)
    line: tuple[bytes, ...] = field(repr=False)

    @property
    def authority(self) -> Authority:
        return Authority(self.seed, self.line[-1])

    @property
    def signing(self) -> SigningKey:
        return SigningKey(self.seed)

    @property
    def mesh(self) -> MeshId:
        return mesh_id_of(public_key_of(self.line[0]))


LENT: contextvars.ContextVar[RootKey | None] = contextvars.ContextVar("root", default=None)
"""The key that ``meshpeer root use`` lends to the command that it runs."""


def local_root(state_dir: Path, roots: tuple[bytes, ...]) -> RootKey:
    """Returns the root's key that is on this machine; ``roots`` are the mesh's. Raises ``Refused`` where
    there is none, or one of another mesh."""
    if not (state_dir / KEYS / "root.key").exists():
        raise Refused(
            "the root's key is not on this node",
            "run this where it is (the founder as a rule), or with its file: "
            "`meshpeer root use FILE -- ...`, on any admin's node",
        )
    return with_line(load_root(state_dir).seed, roots)


def with_line(seed: bytes, roots: tuple[bytes, ...]) -> RootKey:
    """Returns a root's key with its place in the mesh's line; raises ``Refused`` where it has none."""
    public = SigningKey(seed).public
    for place, root in enumerate(roots):
        if public_key_of(root) == public:
            return RootKey(seed, roots[: place + 1])
    raise Refused(
        "this is the key of no root of this mesh",
        "is it of this mesh? `meshpeer root list` tells, while the agent runs (`meshpeer up`)",
    )


def encrypted(key: RootKey, passphrase: str) -> bytes:
    """Returns the file of a root's key; raises ``LocalFault`` for a passphrase that is none."""
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        raise LocalFault(
            f"a passphrase has at least {PASSPHRASE_LENGTH_MIN} characters",
            "take several words: whoever has the file can try as many as they like",
        )
    private = Ed25519PrivateKey.from_private_bytes(key.seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode("utf-8"))
    )
    certificates = (x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in key.line)
    return private + b"".join(certificates)


def decrypted(data: bytes, passphrase: str, source: str) -> RootKey:
    """Reads the file of a root's key; raises ``LocalFault`` for another file or a wrong passphrase."""
    key, begin, rest = data.partition(_BEGIN_CERTIFICATE)
    if not key.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") or not begin:
        raise LocalFault(
            f"{source} holds no root's key", "it is the file that `meshpeer root export` wrote, whole"
        )
    try:
        private = load_pem_private_key(key, passphrase.encode("utf-8"))
        certificates = x509.load_pem_x509_certificates(begin + rest)
    except ValueError as error:
        raise LocalFault(
            f"{source} can't be decrypted", "is this its passphrase? nothing else opens it"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise LocalFault(f"{source} holds another kind of key", "it is no root's key of meshpeer")
    line = tuple(one.public_bytes(Encoding.DER) for one in certificates)
    root = RootKey(private.private_bytes_raw(), line)
    try:
        check_line(line, root.mesh)
        belongs = public_key_of(line[-1]) == root.signing.public
    except (PeerFault, ValueError):
        belongs = False
    if not belongs:
        raise LocalFault(f"the certificates in {source} are not those of its key", "take an unchanged copy")
    return root


def write_export(path: Path, key: RootKey, passphrase: str) -> None:
    """Writes the file, for its owner alone to read, and reads it back; raises ``LocalFault`` where there is
    one already, ``EnvironmentFault`` where it can't be written."""
    data = encrypted(key, passphrase)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise LocalFault(
            f"{path} exists already", "name another file: a root's key is never overwritten"
        ) from error
    except OSError as error:
        raise EnvironmentFault(
            f"{path} can't be written: {error.strerror}", "name a file in a folder of yours"
        ) from error
    if read_export(path, passphrase).seed != key.seed:
        raise EnvironmentFault(f"{path} does not hold what was written", "write it to another disk")


def read_export(path: Path, passphrase: str) -> RootKey:
    """Reads an exported key; raises ``LocalFault``."""
    try:
        with path.open("rb") as file:
            data = file.read(EXPORT_BYTES_MAX)
    except OSError as error:
        raise LocalFault(f"{path} can't be read: {error.strerror}", "check its path and owner") from error
    return decrypted(data, passphrase, str(path))


def remove_local(state_dir: Path) -> None:
    """Removes the root's key from this machine."""
    (state_dir / KEYS / "root.key").unlink()


def keep_beside(state_dir: Path, root: Authority) -> Path:
    """Writes the key of a root that is to follow, beside the present one, and returns where."""
    path = state_dir / KEYS / f"root-{root.id.hex()}.key"
    write_key(path, "root", root.seed)
    return path


def take_over(state_dir: Path, before: Authority, kept: Path) -> None:
    """Makes the key that was kept beside it the root's key of this machine; the one before stays, under its
    own name."""
    present = state_dir / KEYS / "root.key"
    os.replace(present, present.with_name(f"root-{before.id.hex()}.key"))
    os.replace(kept, present)
