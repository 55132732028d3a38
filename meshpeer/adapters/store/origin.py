"""Where a journal was made, so that a copied state folder can be told from the one it was copied from.

Two machines with one copied identity sign two bodies for one precedence, and a replica that was restored from
a backup has forgotten promises. Both are copies of the database file. A copy has another inode, or stands on
another machine; the file that was only renamed, or whose machine was rebooted, has neither. The device number
is left out on purpose: it may change with every boot.

Not told apart: a virtual machine that was cloned with its disk, machine id and hardware id. The mesh sees
that one by equivocation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

_MACHINE_ID = Path("/etc/machine-id")
_HARDWARE_ID = Path("/sys/class/dmi/id/product_uuid")
_PRINT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine by what tells it from others; empty where this process may not know."""

    system: bytes
    hardware: bytes


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the file that a journal lives in."""

    system: bytes
    """16 bytes of a keyed hash of the machine id: machine-id(5) wants the id itself kept confidential."""
    hardware: bytes
    """The same of the firmware's product id, which only root can read; a cloned virtual machine gets a new
    one."""
    inode: int


class CopiedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal was copied from: its store id and origin then, and when this node noticed."""

    store_id: bytes
    origin: Origin
    noticed_at_unix_s: int
    other_machine: bool

    @property
    def explanation(self) -> str:
        """One sentence for ``status``."""
        place = "another machine" if self.other_machine else "another place on this machine"
        return (
            f"this state folder was copied from {place}: never run both copies; "
            "`meshpeer leave` in one of them, and join it anew"
        )


class StoreRow(msgspec.Struct, frozen=True, kw_only=True):
    """The journal about itself (table ``store``, key ``self``)."""

    store_id: bytes
    origin: Origin
    copied_from: CopiedFrom | None = None


def observe_machine() -> Machine:
    """Reads what tells this machine from others."""
    return Machine(
        system=_fingerprint("system", _MACHINE_ID), hardware=_fingerprint("hardware", _HARDWARE_ID)
    )


def observe_origin(path: Path, machine: Machine) -> Origin:
    """Returns the present origin of the database file at ``path``."""
    return Origin(system=machine.system, hardware=machine.hardware, inode=path.stat().st_ino)


def succeed(row: StoreRow, present: Origin, *, fresh_id: bytes, now_unix_s: int) -> StoreRow:
    """Returns the row that holds from now on: as it was, or, for a copy, with a new store id and the old
    one's story.

    A copy is a new replica: what it has on disk may be older than what its original promised since.
    """
    other_machine = _differ(row.origin.system, present.system) or _differ(
        row.origin.hardware, present.hardware
    )
    if not other_machine and row.origin.inode == present.inode:
        known = Origin(
            system=present.system or row.origin.system,
            hardware=present.hardware or row.origin.hardware,
            inode=present.inode,
        )
        return msgspec.structs.replace(row, origin=known)
    copied = CopiedFrom(
        store_id=row.store_id, origin=row.origin, noticed_at_unix_s=now_unix_s, other_machine=other_machine
    )
    return StoreRow(store_id=fresh_id, origin=present, copied_from=copied)


def _differ(then: bytes, now: bytes) -> bool:
    """Says whether both are known and not equal: what was not readable proves nothing."""
    return bool(then and now) and then != now


def _fingerprint(kind: str, source: Path) -> bytes:
    try:
        text = source.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return b""
    # systemd writes "uninitialized" into images that were not booted yet.
    if not text or text == "uninitialized":
        return b""
    return hashlib.sha256(f"meshpeer/{kind}/v1\0{text}".encode()).digest()[:_PRINT_BYTES]
