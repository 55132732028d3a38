"""Which labs run on this machine: one small file each, so that another process can list, enter and end them.

Files stand in /run/meshpeer-labs (MESHPEER_LABS overrides it). A lab's fabric removes its file when the lab
ends, also when its owner was killed; whatever is left over all the same names only processes that no longer
exist, and is removed by whoever looks next. A process is named by its PID and the moment it started, so that
a PID that was given out again is never taken for a lab's.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from meshlab.errors import LabError

POLITE_TIMEOUT_S = 2.0
DOWN_TIMEOUT_S = 10.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process, for good: ``started`` is in clock ticks since boot (proc(5), field 22 of stat)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Names a process that runs. Raises LabError when there is none."""
        started = _start_time(pid)
        if started is None:
            raise LabError(f"process {pid} is gone", "start the lab again")
        return cls(pid=pid, started=started)

    def alive(self) -> bool:
        """Says whether this very process still runs (a zombie doesn't)."""
        return _start_time(self.pid) == self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class LabRecord:
    """What others may know of a running lab. ``kept`` marks one that ``lab up`` left running."""

    name: str
    kept: bool
    owner: ProcessId
    fabric: ProcessId
    inits: Mapping[str, ProcessId]
    addresses: Mapping[str, Mapping[str, list[str]]]

    def alive(self) -> bool:
        """Says whether anything of the lab still runs."""
        return any(process.alive() for process in (self.fabric, *self.inits.values()))


def folder() -> Path:
    """Returns the folder of records."""
    return Path(os.environ.get("MESHPEER_LABS", "/run/meshpeer-labs"))


def record_path(name: str) -> Path:
    """Returns where the record of a lab stands."""
    return folder() / f"{name}.json"


def write_record(record: LabRecord) -> None:
    """Makes a lab known; readers see it whole or not at all."""
    path = record_path(record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(path)


def running_labs() -> list[LabRecord]:
    """Returns the labs that run, by name, and removes the records of those that don't."""
    found: list[LabRecord] = []
    for path in sorted(folder().glob("*.json")):
        try:
            record = _read(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            # Removed meanwhile, or not ours: neither is a lab that runs.
            continue
        if record.alive():
            found.append(record)
        else:
            path.unlink(missing_ok=True)
    return found


def find_lab(name: str | None) -> LabRecord:
    """Returns the lab of this name, or the only one. Raises LabError when that is not one lab."""
    labs = running_labs()
    chosen = labs if name is None else [lab for lab in labs if lab.name == name]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(lab.name for lab in labs)
    if not labs:
        raise LabError("no lab is running", "start one: scripts/netns/lab up scripts/netns/labs/lan3.toml")
    raise LabError(f"which lab? {name or 'none'} was named", f"running: {names}")


def end_lab(record: LabRecord) -> None:
    """Ends a lab and all that runs in it, from outside. Raises LabError when something survives."""
    if record.kept and record.owner.alive():
        _kill(record.owner, signal.SIGTERM)
        _wait_until_gone(record, POLITE_TIMEOUT_S)
    # An init takes every process of its node along, whatever state those are in.
    for process in (*record.inits.values(), record.fabric):
        _kill(process, signal.SIGKILL)
    if not _wait_until_gone(record, DOWN_TIMEOUT_S):
        raise LabError(f"lab {record.name} did not end", f"look at process {record.fabric.pid}")
    record_path(record.name).unlink(missing_ok=True)


def _wait_until_gone(record: LabRecord, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while record.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _kill(process: ProcessId, number: signal.Signals) -> None:
    """Signals a process by descriptor, so that a PID given out again in between is not hit."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.alive():
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may hold anything, spaces and parentheses too.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _read(document: Mapping[str, object]) -> LabRecord:
    inits = cast(Mapping[str, Mapping[str, int]], document["inits"])
    return LabRecord(
        name=str(document["name"]),
        kept=bool(document["kept"]),
        owner=ProcessId(**cast(Mapping[str, int], document["owner"])),
        fabric=ProcessId(**cast(Mapping[str, int], document["fabric"])),
        inits={name: ProcessId(**process) for name, process in inits.items()},
        addresses=cast(Mapping[str, Mapping[str, list[str]]], document["addresses"]),
    )
