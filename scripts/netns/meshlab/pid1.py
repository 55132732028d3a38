"""The init of a lab node: makes the node's namespaces and mounts, then reaps until its lab is gone.

Run as ``python -I -S pid1.py JSON`` by ``Node``, as PID 1 of a new PID namespace; it stands alone, imports
only the standard library, and prints ``ready`` once the node can be used. It ends when the pipe on file
descriptor ``alive_fd`` closes, which happens when the lab's owner exits in whatever way; the kernel then
kills every process of the PID namespace and takes the node's interfaces and mounts with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 8192, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def main(spec: dict[str, object]) -> None:
    """Sets the node up as ``spec`` says and waits for its lab to end."""
    _checked(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET), "unshare")
    # Without this, mounts made here would appear on the machine itself where / is a shared mount.
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    name = str(spec["name"]).encode()
    _checked(_libc.sethostname(name, len(name)), "sethostname")
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if spec["private"]:
        _mount_private_folders(str(spec["name"]))
    _set_sysctls(bool(spec["forward"]))
    alive_fd = int(str(spec["alive_fd"]))
    print("ready", flush=True)
    _reap_until_closed(alive_fd)
    if spec["remove_at_end"]:
        try:
            os.unlink(str(spec["remove_at_end"]))
        except FileNotFoundError:
            pass


def _mount_private_folders(name: str) -> None:
    """A node's own /run, /var/log, /etc, /var/lib, /sys, and an empty state folder, all gone with the
    node."""
    cgroups = "/sys/fs/cgroup"
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _mount("tmpfs", "/var/log", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in ("lock", "wireguard"):
        os.mkdir(f"/run/{folder}")
    scratch = "/run/.meshlab"
    for folder in ("", "/sys", "/etc", "/etc/upper", "/etc/work", "/lib", "/lib/upper", "/lib/work"):
        os.mkdir(scratch + folder)
    # sysfs shows the interfaces of the network namespace that mounted it.
    _mount("sysfs", f"{scratch}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if os.path.isdir(scratch + cgroups):
        _mount(cgroups, scratch + cgroups, "", MS_BIND | MS_REC)
    _mount(f"{scratch}/sys", "/sys", "", MS_MOVE)
    # An overlay, not a bind mount over /etc/hosts: programs replace such files with rename(2).
    for lower, part in (("/etc", "etc"), ("/var/lib", "lib")):
        upper, work = f"{scratch}/{part}/upper", f"{scratch}/{part}/work"
        _mount("overlay", lower, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    for folder in ("/etc/meshpeer", "/var/lib/meshpeer"):
        os.makedirs(folder, exist_ok=True)
        _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1g")
    _write("/etc/hostname", f"{name}\n")
    _write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n")
    _write("/etc/resolv.conf", "# A lab has no name server.\n")


def _set_sysctls(forward: bool) -> None:
    """No duplicate address detection, router discovery or reverse path filter: a lab is ready when it is
    made."""
    for family, key, value in (
        ("ipv4", "rp_filter", 0),
        ("ipv4", "forwarding", int(forward)),
        ("ipv6", "accept_dad", 0),
        ("ipv6", "accept_ra", 0),
        ("ipv6", "forwarding", int(forward)),
    ):
        for scope in ("all", "default"):
            path = f"/proc/sys/net/{family}/conf/{scope}/{key}"
            if os.path.exists(path):
                _write(path, str(value))


def _reap_until_closed(alive_fd: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([alive_fd, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
        while _reaped_one():
            pass
        if alive_fd in ready and not os.read(alive_fd, 1):
            return


def _reaped_one() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _write(path: str, text: str) -> None:
    # The old file may be a link to one that belongs to the machine; it is replaced, not written through.
    if not path.startswith("/proc/") and os.path.lexists(path):
        os.unlink(path)
    with open(path, "w") as file:
        file.write(text)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags))
    _checked(_libc.mount(*arguments, options.encode() or None), f"mount {kind or 'bind'} on {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
