"""Looks at this machine. Never raises for what is missing: that is what is looked for.

Synchronous, since the command line runs it without an event loop; whatever could hang (a program, a name
server) has its time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAM_S_MAX = 5.0
RESOLVE_S_MAX = 3.0
HOSTS_BYTES_MAX = 4 * 1024 * 1024
_CAP_NET_ADMIN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system below a folder."""

    folder: str
    free_bytes: int
    """What this user may still take."""
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """What nftables holds."""

    text: bytes | None
    """The output of ``nft --json list ruleset``; None where it can't be had."""
    why_not: str = ""
    iptables_legacy: bool = False
    """The kernel holds tables of the older iptables, which ``nft`` does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    programs: tuple[str, ...]
    """Those of the asked ones that are installed."""
    kernel_wireguard: bool
    """The kernel's WireGuard is loaded, built in, or there to be loaded."""
    tun: bool
    """There is ``/dev/net/tun``."""
    may_configure: bool
    """This process has CAP_NET_ADMIN."""
    disk: Disk | None
    hosts: str
    """The hosts file; empty where it can't be read."""
    ruleset: Ruleset


def observe_machine(programs: Iterable[str], folder: Path, *, hosts: Path = Path("/etc/hosts")) -> Machine:
    """Returns this machine as it is now; ``folder`` is where the node's state is, or will be."""
    return Machine(
        programs=tuple(one for one in programs if find_program(one)),
        kernel_wireguard=_kernel_has("wireguard"),
        tun=os.access("/dev/net/tun", os.F_OK),
        may_configure=_may_configure(),
        disk=_disk(folder),
        hosts=_read(hosts),
        ruleset=_ruleset(),
    )


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def newest_file(folder: Path) -> float:
    """Returns when a file of the folder itself was written last, in Unix seconds; 0 for none."""
    newest = 0.0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False):
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
    return newest


def resolve(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the addresses of each name, none for one that is not known; all are asked for at once."""
    found: dict[str, tuple[str, ...]] = {}

    def look_up(name: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found[name] = tuple(dict.fromkeys(str(one[4][0]) for one in answers))

    wanted = list(dict.fromkeys(names))
    threads = [threading.Thread(target=look_up, args=(name,), daemon=True) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(RESOLVE_S_MAX)
    return {name: found.get(name, ()) for name in wanted}


def _kernel_has(module: str) -> bool:
    if Path("/sys/module", module).exists():
        return True
    folder = Path("/lib/modules") / os.uname().release
    lists = (_read(folder / name) for name in ("modules.dep", "modules.builtin"))
    return any(f"/{module}.ko" in one for one in lists)


def _may_configure() -> bool:
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return os.geteuid() == 0


def _disk(folder: Path) -> Disk | None:
    for one in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            status = os.statvfs(one)
            return Disk(
                folder=str(folder),
                free_bytes=status.f_bavail * status.f_frsize,
                total_bytes=status.f_blocks * status.f_frsize,
            )
    return None


def _ruleset() -> Ruleset:
    legacy = bool(_read(Path("/proc/net/ip_tables_names")) or _read(Path("/proc/net/ip6_tables_names")))
    nft = find_program("nft")
    if nft is None:
        return Ruleset(text=None, why_not="`nft` is not installed", iptables_legacy=legacy)
    try:
        done = subprocess.run(
            [nft, "--json", "list", "ruleset"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Ruleset(text=None, why_not="`nft` did not answer", iptables_legacy=legacy)
    if done.returncode != 0:
        why = "that takes root" if os.geteuid() != 0 else "`nft list ruleset` failed"
        return Ruleset(text=None, why_not=why, iptables_legacy=legacy)
    return Ruleset(text=done.stdout, iptables_legacy=legacy)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(HOSTS_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
