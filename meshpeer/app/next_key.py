"""The WireGuard key that this node changes to, on disk: ``keys/wireguard.next.key``.

It is there before anybody hears of it, and takes the place of ``keys/wireguard.key`` by a rename, so at any
moment one file says what the interface is to hold. Its time says when the key was made.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from meshpeer.app.state import KEYS, read_key
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey, encode_key_file
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.node.rotation import KeyKept

NAME, NEXT_NAME = "wireguard", "wireguard.next"


def make_next_key(folder: Path, seed: bytes) -> WireGuardPrivateKey:
    """Writes the next key; raises ``EnvironmentFault`` where that can't be done."""
    path = _path(folder, NEXT_NAME)
    draft = path.with_suffix(".new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(encode_key_file("wireguard", seed).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        _rename(draft, path)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} can't be written: {error.strerror}", f"is the disk full? (df -h {folder})"
        ) from error
    return WireGuardPrivateKey(seed)


def load_next_key(folder: Path) -> WireGuardPrivateKey | None:
    """Returns the key that this node was about to change to when it ended; None where there is none."""
    if not _path(folder, NEXT_NAME).exists():
        return None
    return WireGuardPrivateKey(read_key(folder, NEXT_NAME, "wireguard"))


def keep_next_key(folder: Path, public_key: WireGuardKey) -> KeyKept:
    """Makes the next key the current one, in one step; says whether that is on disk.

    Asked again where a folder could not be flushed after the rename, it flushes that alone."""
    try:
        held = load_next_key(folder)
        if held is None and _current(folder) == public_key:
            _flush(folder / KEYS)
            return KeyKept(public_key=public_key)
        if held is None or held.public != public_key:
            return KeyKept(public_key=public_key, fault=f"{_path(folder, NEXT_NAME)} holds another key")
        _rename(_path(folder, NEXT_NAME), _path(folder, NAME))
    except OSError as error:
        return KeyKept(public_key=public_key, fault=f"{error.filename}: {error.strerror}")
    except EnvironmentFault as fault:
        return KeyKept(public_key=public_key, fault=fault.what)
    return KeyKept(public_key=public_key)


def drop_next_key(folder: Path) -> None:
    """Forgets the next key: nobody will use it."""
    with contextlib.suppress(OSError):
        _path(folder, NEXT_NAME).unlink(missing_ok=True)


def made_unix_s(folder: Path) -> float | None:
    """Returns when the current key was made (Unix seconds), as its file says; None where it can't be read."""
    with contextlib.suppress(OSError):
        return _path(folder, NAME).stat().st_mtime
    return None


def _path(folder: Path, name: str) -> Path:
    return folder / KEYS / f"{name}.key"


def _current(folder: Path) -> WireGuardKey:
    return WireGuardPrivateKey(read_key(folder, NAME, "wireguard")).public


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    _flush(target.parent)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
