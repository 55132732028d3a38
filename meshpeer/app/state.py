"""A node's state folder: its keys, certificates and settled facts. Files with secrets are 0600, and refused
when others can read them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.identity.certificates import Authority
from meshpeer.core.identity.keys import SigningKey, WireGuardPrivateKey, decode_key_file, encode_key_file
from meshpeer.core.ids import MeshId
from meshpeer.core.records.ledger import Chain
from meshpeer.core.wire.unreadable import UNREADABLE

KEYS = "keys"
NODE_FILE = "node.json"
_RESTORE = "restore it from a backup; or revoke this node elsewhere, `meshpeer down`, and join anew"
_OF_ONE_NODE = (KEYS, "chain.json", "chain.json.new", "state.db", "state.db-wal", "state.db-shm")
"""What belongs to one identity. Blobs belong to none: they are named by their content."""


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was settled when this node was founded or joined (``node.json``): no secrets, fields only ever
    added."""

    version: int = 1
    mesh: bytes
    roots: tuple[bytes, ...]
    name: str
    region: str
    roles: tuple[str, ...]
    endpoint: str
    seeds: tuple[str, ...]
    wireguard_port: int
    """0 where the node joined with backend none."""
    control_port: int
    issuer_certificate: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A loaded state folder."""

    folder: Path
    node: NodeFile
    key: SigningKey
    wireguard_key: WireGuardPrivateKey
    chain: Chain
    issuer: Authority | None
    issuer_seed: bytes = field(default=b"", repr=False)
    """Of the issuer's key that is here, whether a root has signed it yet or not."""

    @property
    def mesh(self) -> MeshId:
        return MeshId(self.node.mesh)


def exists(folder: Path) -> bool:
    return (folder / NODE_FILE).exists()


def refuse_existing(folder: Path, verb: str) -> None:
    """Raises ``LocalFault`` where the folder belongs to a node already: keys are never overwritten.

    A node whose own key is gone is none any more; what is left of it is put aside."""
    if exists(folder) and (folder / KEYS / "node.key").exists():
        raise LocalFault(
            f"this machine is a node already ({folder / NODE_FILE} exists)",
            f"`meshpeer up` runs it; to {verb} anew, `meshpeer leave` first, or use another --state-dir",
        )


class StateWriter:
    """Writes a new state folder beside its place and moves it there whole: a failure leaves nothing
    behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._draft = Path(
                tempfile.mkdtemp(prefix=".meshpeer-", dir=folder if folder.exists() else folder.parent)
            )
        except OSError as error:
            raise EnvironmentFault(
                f"{folder} can't be made: {error.strerror}",
                "run with sudo, or name a folder of yours with --state-dir",
            ) from error
        (self._draft / KEYS).mkdir(mode=0o700)

    def key(self, name: str, kind: str, seed: bytes) -> None:
        self._write(Path(KEYS) / f"{name}.key", encode_key_file(kind, seed).encode("ascii"))

    def node(self, node: NodeFile, chain: Chain) -> None:
        self._write(Path(NODE_FILE), msgspec.json.format(msgspec.json.encode(node), indent=2) + b"\n")
        self._write(Path("chain.json"), msgspec.json.encode(list(chain)))

    def copy(self, name: str, source: Path) -> None:
        shutil.copyfile(source, self._draft / name)

    @property
    def draft(self) -> Path:
        return self._draft

    def publish(self) -> None:
        """Moves everything into place; ``node.json`` comes last, so a half-moved folder is no node.

        What a node that left has here is put aside, whole: its keys are never overwritten, and its journal's
        log would be replayed into ours.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            os.chmod(self._folder, 0o711)
            self._put_aside()
            entries = sorted(self._draft.iterdir(), key=lambda entry: entry.name == NODE_FILE)
            for entry in entries:
                os.rename(entry, self._folder / entry.name)
        except OSError as error:
            raise EnvironmentFault(
                f"{self._folder} can't be written: {error.strerror}", "is the disk full? (df -h)"
            ) from error
        finally:
            self.discard()

    def _put_aside(self) -> None:
        left = [self._folder / name for name in _OF_ONE_NODE if (self._folder / name).exists()]
        if left:
            aside = Path(tempfile.mkdtemp(prefix="before-", dir=self._folder))
            for path in left:
                os.rename(path, aside / path.name)

    def discard(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def _write(self, name: Path, data: bytes) -> None:
        path = self._draft / name
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.discard()
            raise EnvironmentFault(
                f"{path.name} can't be written: {error.strerror}",
                f"free some space (df -h {self._folder.parent})",
            ) from error


def save_chain(folder: Path, chain: Chain) -> None:
    """Replaces the chain that the node shows; the old one stays whole until the new one is on disk."""
    _replace(folder / "chain.json", msgspec.json.encode(list(chain)))


def save_node(folder: Path, node: NodeFile) -> None:
    """Replaces what was settled of this node, likewise; raises ``EnvironmentFault``."""
    path = folder / NODE_FILE
    try:
        _replace(path, msgspec.json.encode(node))
    except OSError as error:
        raise EnvironmentFault(
            f"{path} can't be written: {error.strerror}", "is the disk full? (df -h)"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def write_key(path: Path, kind: str, seed: bytes) -> None:
    """Writes a key file beside those that are here; raises ``EnvironmentFault``, also where there is one, and
    leaves no part of a file behind."""
    made = False
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            made = True
            file.write(encode_key_file(kind, seed).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise EnvironmentFault(
            f"{path} can't be written: {error.strerror}", "is the disk full? (df -h)"
        ) from error


def keep_issuer_key(folder: Path, seed: bytes) -> None:
    """Writes the issuer's key that this node made; raises ``EnvironmentFault``."""
    write_key(folder / KEYS / "issuer.key", "issuer", seed)


def load_state(folder: Path) -> State:
    """Reads the folder; raises ``LocalFault`` where there is no node, ``EnvironmentFault`` where a file is
    damaged or open to others."""
    if not exists(folder):
        raise LocalFault(
            f"this machine is no node of a mesh ({folder / NODE_FILE} does not exist)",
            "found a mesh with `meshpeer init`, or join one with `meshpeer join INVITE`",
        )
    try:
        node = msgspec.json.decode((folder / NODE_FILE).read_bytes(), type=NodeFile)
        chain = tuple(msgspec.json.decode((folder / "chain.json").read_bytes(), type=list[bytes]))
    except (OSError, *UNREADABLE) as error:
        raise EnvironmentFault(
            f"the state in {folder} can't be read: {error}",
            "restore it from a backup, or join anew with an invite",
        ) from error
    if node.version > 1:
        raise EnvironmentFault(
            f"{folder} was written by a newer version of meshpeer",
            "upgrade meshpeer on this machine; nothing was touched",
        )
    key = SigningKey(read_key(folder, "node", "node"))
    wireguard = WireGuardPrivateKey(read_key(folder, "wireguard", "wireguard"))
    issuer = (
        Authority(read_key(folder, "issuer", "issuer"), node.issuer_certificate)
        if node.issuer_certificate
        else None
    )
    kept = (folder / KEYS / "issuer.key").exists()
    return State(
        folder=folder,
        node=node,
        key=key,
        wireguard_key=wireguard,
        chain=chain,
        issuer=issuer,
        issuer_seed=read_key(folder, "issuer", "issuer") if kept else b"",
    )


def load_mesh(folder: Path) -> MeshId:
    """Returns the mesh that the folder's node is of, whatever became of its keys; raises
    ``EnvironmentFault``."""
    try:
        return MeshId(msgspec.json.decode((folder / NODE_FILE).read_bytes(), type=NodeFile).mesh)
    except (OSError, msgspec.DecodeError) as error:
        raise EnvironmentFault(f"{folder / NODE_FILE} can't be read: {error}", _RESTORE) from error


def load_root(folder: Path) -> SigningKey:
    """Reads the root's key; raises ``EnvironmentFault`` where it is not here, damaged, or open to others."""
    return SigningKey(read_key(folder, "root", "root"))


def read_key(folder: Path, name: str, kind: str) -> bytes:
    """Returns a key's seed; raises ``EnvironmentFault`` where its file is damaged, or open to others."""
    path = folder / KEYS / f"{name}.key"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise EnvironmentFault(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        return decode_key_file(path.read_text("ascii"), kind, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(f"{path} can't be read: {error}", _RESTORE) from error
