"""Judges what this machine has: programs, a way to make tunnels, disk, free ports, names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshpeer.adapters.wireguard.tools import PACKAGES
from meshpeer.app.spans import seconds
from meshpeer.app.words import few
from meshpeer.runtime.doctor import BAD, OK, UNKNOWN, WARNING, Finding

MACHINE, NAMES = "machine", "names"
FREE_LOW = 0.05
"""Less of a file system than this is worth a word."""
CLOCK_BEHIND_S = 60.0
FREE_BYTES_MIN = 64 * 1024 * 1024
"""Less than this and the journal may fail any moment, which ends the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is installed, and what this node does."""

    installed: tuple[str, ...]
    kernel: bool
    tun: bool
    userspace: str = "wireguard-go"
    """The program that stands in where the kernel has no WireGuard."""
    tunnels: bool = True
    """The node has an interface, or will have one."""
    backend: str = "auto"
    forwards: bool = False


def judge_tools(seen: Programs) -> list[Finding]:
    """Are the programs there that the node runs?"""
    if not seen.tunnels:
        return [_finding("tools", OK, "no programs are needed: this node has no interface")]
    wanted = ["wg", "ip"] + (["nft"] if seen.forwards else [])
    missing = [one for one in wanted if one not in seen.installed]
    found = [
        _finding("tools", BAD, f"`{one}` is not installed: {_use(one)} needs it", _install(one))
        for one in missing
    ]
    if not missing:
        found = [_finding("tools", OK, f"{few([f'`{one}`' for one in wanted])} are installed")]
    if "nft" not in seen.installed and not seen.forwards:
        text = "`nft` is not installed: this node can't be a hub, and its firewall can't be looked at"
        found.append(_finding("tools", WARNING, text, _install("nft")))
    return found


def judge_backend(seen: Programs) -> list[Finding]:
    """Can tunnels be made here?"""
    if not seen.tunnels:
        return []
    userspace = seen.userspace in seen.installed
    if seen.kernel and seen.backend != "userspace":
        return [_finding("backend", OK, "the kernel has WireGuard")]
    if seen.backend == "kernel":
        text = "the kernel has no WireGuard, and the settings ask for it"
        return [_finding("backend", BAD, text, "modprobe wireguard, or --backend userspace")]
    if not userspace:
        text = f"the kernel has no WireGuard, and `{seen.userspace}` is not installed"
        if seen.kernel:
            text = f"`{seen.userspace}` is not installed, and the settings ask for it"
        return [_finding("backend", BAD, text, f"modprobe wireguard, or {_install(seen.userspace)}")]
    if not seen.tun:
        text = f"there is no /dev/net/tun, which `{seen.userspace}` needs"
        return [_finding("backend", BAD, text, "modprobe tun (in a container: --device /dev/net/tun)")]
    reason = "asked for" if seen.kernel else "the kernel has no WireGuard"
    return [_finding("backend", OK, f"`{seen.userspace}` and a TUN device ({reason})")]


def judge_disk(folder: str, free_bytes: int, total_bytes: int) -> Finding:
    """Is there room for the journal and for files of jobs?"""
    share = free_bytes / total_bytes if total_bytes else 0.0
    text = f"{_size(free_bytes)} ({share:.0%}) are free below {folder}"
    todo = (f"free some space: `du -sh {folder}/blobs` shows what files of jobs take",)
    if free_bytes < FREE_BYTES_MIN:
        text = f"{text}: an agent that can't write its journal stops"
        return _finding("disk", BAD, text, *todo)
    if share < FREE_LOW:
        return _finding("disk", WARNING, text, *todo)
    return _finding("disk", OK, text)


def judge_ports(faults: Iterable[tuple[str, str]], ports: str) -> list[Finding]:
    """Can an agent take its ports? Only asked while none runs. ``faults``: what is wrong and what to do."""
    found = [_finding("ports", BAD, what, hint) for what, hint in faults]
    return found or [_finding("ports", OK, f"{ports} are free for an agent")]


# --- names --------------------------------------------------------------------------------------------------


def judge_hosts(
    block: Mapping[str, tuple[str, ...]], resolved: Mapping[str, tuple[str, ...]], *, kept: bool
) -> Finding:
    """Do members' names work? ``block`` is what the hosts file says between meshpeer's marks, ``resolved``
    what the system makes of some of them; ``kept``: an agent keeps the block."""
    if not kept:
        return Finding(group=NAMES, check="hosts", level=OK, text="names are not kept in /etc/hosts here")
    if not block:
        return Finding(
            group=NAMES,
            check="hosts",
            level=WARNING,
            text="/etc/hosts has no names of members: names like alpha.mesh are not known",
            todo=("see `meshpeer status` and agent.log: can the agent write /etc/hosts?",),
        )
    wrong = sorted(name for name, seen in resolved.items() if not {*seen} & {*block.get(name, ())})
    if wrong:
        return Finding(
            group=NAMES,
            check="hosts",
            level=BAD,
            text=f"{few(wrong)} in /etc/hosts, but the system does not find it there",
            todo=("`files` has to come first in the line `hosts:` of /etc/nsswitch.conf",),
        )
    text = f"{len(block)} names in /etc/hosts, and the system finds them"
    return Finding(group=NAMES, check="hosts", level=OK, text=text)


def judge_lookups(resolved: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Do the DNS names resolve that are named as endpoint or as seeds?"""
    unknown = sorted(name for name, seen in resolved.items() if not seen)
    if unknown:
        text = f"{few(unknown)} does not resolve" if len(unknown) == 1 else f"{few(unknown)} do not resolve"
        todo = (
            "it is named as an endpoint or a seed: `getent hosts NAME` shows what this machine makes of it",
        )
        return [Finding(group=NAMES, check="dns", level=WARNING, text=text, todo=todo)]
    if resolved:
        text = f"{few(sorted(resolved))}: endpoints and seeds by name resolve"
        return [Finding(group=NAMES, check="dns", level=OK, text=text)]
    return []


def names_of(addresses: Iterable[str]) -> list[str]:
    """Returns the DNS names among ``HOST`` and ``HOST:PORT``."""
    names: list[str] = []
    for one in addresses:
        host = one.rpartition(":")[0] if one.count(":") == 1 or one.startswith("[") else one
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            if host and "(" not in host:
                names.append(host)
    return list(dict.fromkeys(names))


# --- the agent itself ---------------------------------------------------------------------------------------


def judge_absence(*, is_node: bool, why: str, interface: str = "") -> Finding:
    """No agent answers: is that wrong? ``interface`` is the node's, where it is still there."""
    if not is_node:
        return _finding(
            "agent",
            UNKNOWN,
            "this machine is no node yet: what follows is what a node would need",
            "meshpeer init, or meshpeer join INVITE",
        )
    rest = (
        f"{interface} stays as it is, and nothing keeps it in step" if interface else "there are no tunnels"
    )
    text = f"{why}; {rest}"
    return _finding("agent", BAD, text, "meshpeer up --detach; `tail agent.log` in its state folder says why")


def judge_clock_alone(newest_file_unix_s: float, now_unix_s: float) -> Finding:
    """Is the clock right, as far as this node's own files tell? They can't be of the future."""
    behind_s = newest_file_unix_s - now_unix_s
    if behind_s > CLOCK_BEHIND_S:
        text = f"the clock is {seconds(behind_s)} or more behind: this node has written files since"
        todo = ("timedatectl set-ntp true, or set it by hand",)
        return Finding(group="clock", check="clock", level=BAD, text=text, todo=todo)
    text = "without an agent there is no other clock to compare with"
    return Finding(group="clock", check="clock", level=UNKNOWN, text=text)


def _finding(check: str, level: str, text: str, *todo: str) -> Finding:
    return Finding(group=MACHINE, check=check, level=level, text=text, todo=todo)


def _install(program: str) -> str:
    apt, dnf = PACKAGES.get(program, ("", ""))
    return f"apt install {apt}, or dnf install {dnf}" if apt else f"install `{program}`"


def _use(program: str) -> str:
    return {"nft": "forwarding for others", "ip": "the interface"}.get(program, "every tunnel")


def _size(amount: int) -> str:
    if amount < 1_024**3:
        return f"{amount / 1_024**2:.0f} MiB"
    return f"{amount / 1_024**3:.0f} GiB"
