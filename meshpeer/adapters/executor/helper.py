"""The spawn helper: a small program that starts one task at a time for the agent, and ends all that it left
behind.

It exists for three reasons. It drops to the slot's user once, so no task pays for a fork as large as the
agent (a change of user per spawn rules out vfork). It is the reaper of everything that its tasks start, so an
attempt ends with all of its processes, daemons too. And it notices by its closed socket that the agent died,
however it died.

It talks over one SOCK_SEQPACKET socket (unix(7)). Requests: ``R`` and the task (see ``pack_task``) with the
descriptors of stdout and stderr, or ``M`` where a third descriptor holds a task too large for a message;
``T`` sends SIGTERM to the task's group, ``K`` SIGKILL to all. Replies are ASCII, parsed as coming from an
unprivileged process: ``ready`` or ``refused TEXT`` once (``kept TEXT`` where it can't leave the network);
per task ``failed STAGE ERRNO``, or ``ended STATUS KILLED`` with a wait status and how many processes the task
had left running, before which a task that lives longer than a moment gives ``pid PID``.

Run by an isolated interpreter, it imports all it needs before it drops: afterwards the
interpreter's own files may be closed to it. It therefore knows nothing of meshpeer, takes ``_socket`` for
``socket`` (which doubles what is imported), and reads SIGCHLD from a signalfd rather than through ``signal``.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import fcntl
import os
import resource
import select
import stat
import sys

MESSAGE_BYTES_MAX = 64 * 1024
"""One request; larger tasks travel in a memory file. Well below the usual socket buffer of 208 KiB."""
REPLY_BYTES_MAX = 512
PROCESSES_MAX = 512
"""RLIMIT_NPROC of a slot's user: all processes and threads of a task, and the helper."""
FILES_OPEN = (1024, 65_536)
"""RLIMIT_NOFILE, soft and hard (as far as the agent's own allows)."""
OOM_SCORE_ADJ, TASK_OOM_SCORE_ADJ = 500, 900
"""Tasks go before the agent and the rest of the machine where memory runs out, and before their helper
(proc(5))."""
LONG_AFTER_MS = 20
"""A task that lives longer is announced by pid, so that the agent can end it if the helper can't."""
ANCESTRY_BYTES_MAX = 64 * 1024

_SIGKILL, _SIGTERM, _SIGCHLD, _SIGSTOP = 9, 15, 17, 19
_ALL_SIGNALS = tuple(number for number in range(1, 65) if number not in (_SIGKILL, _SIGSTOP, 32, 33))
"""32 and 33 belong to the C library (nptl(7))."""
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP = 4, 15, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IPC_RMID = 0
_SFD_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_SIGSET_BYTES = 128
_INHERITED_RLIMITS = (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE)
_TASK_RLIMITS = (resource.RLIMIT_AS, *_INHERITED_RLIMITS)


class NetworkKept(Exception):
    """This machine does not let a process out of its network."""


def pack_task(
    folder: bytes, argv: list[bytes], env: dict[bytes, bytes], rlimits: tuple[int, int, int]
) -> bytes:
    """Returns a task as one string: parts that can't hold a NUL, separated by it.

    ``rlimits`` are RLIMIT_AS, RLIMIT_NPROC and RLIMIT_FSIZE; 0 leaves the helper's own.
    """
    pairs = [name + b"=" + value for name, value in env.items()]
    return b"\0".join([folder, b"%d %d %d" % rlimits, b"%d" % len(argv), *argv, *pairs])


def unpack_task(data: bytes) -> tuple[bytes, list[bytes], dict[bytes, bytes], list[int]]:
    folder, rlimits, count, *rest = data.split(b"\0")
    argv, pairs = rest[: int(count)], rest[int(count) :]
    env = {}
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        env[name] = value
    return folder, argv, env, [int(word) for word in rlimits.split()]


def main(socket_descriptor: int, uid: int, file_bytes_max: int, network: bool) -> None:
    """Serves until the socket closes. ``uid`` is this slot's own user, or -1 to stay the agent's; without
    ``network`` there is a loopback and nothing else."""
    os.set_inheritable(socket_descriptor, False)
    agent = _socket.socket(fileno=socket_descriptor)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        _limit(own_uid=uid >= 0, file_bytes_max=file_bytes_max)
        left = network or _leave_network(libc)
        _renounce(libc, uid, left_network=left)
        children = _signal_descriptor(libc)
        # An import would now read files that this user may not see: let it fail always, not sometimes.
        sys.path.clear()
        sys.meta_path.clear()
        if uid >= 0:
            _end_all(own_uid=True)
            _remove_ipc(libc)
    except (OSError, ValueError) as error:
        agent.send(f"refused {error}".encode()[:REPLY_BYTES_MAX])
        return
    except NetworkKept as error:
        agent.send(f"kept {error}".encode()[:REPLY_BYTES_MAX])
        return
    try:
        agent.send(b"ready")
        _serve(libc, agent, children, own_uid=uid >= 0)
    except OSError:  # the agent is gone: a send failed, or a receive was reset
        pass
    finally:
        _end_all(own_uid=uid >= 0)


def _limit(*, own_uid: bool, file_bytes_max: int) -> None:
    """Sets limits on the helper itself; what it spawns inherits them, with no moment in between."""
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"%d" % OOM_SCORE_ADJ)
    except OSError:  # a container may forbid it; the task then only loses its place in the queue
        pass
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, file_bytes_max, file_bytes_max)
    _lower(resource.RLIMIT_NOFILE, *FILES_OPEN)
    if own_uid:  # it counts all processes of a user: the agent's own user has others
        _lower(resource.RLIMIT_NPROC, PROCESSES_MAX, PROCESSES_MAX)


def _lower(kind: int, soft: int, hard: int) -> None:
    present = resource.getrlimit(kind)[1]
    if present != resource.RLIM_INFINITY:
        hard = min(hard, present)
    resource.setrlimit(kind, (min(soft, hard), hard))


def _raise_loopback() -> None:
    """Brings up the one interface of a new network namespace; raises ``OSError``."""
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = bytearray(b"lo".ljust(40, b"\0"))  # struct ifreq: 16 bytes of name, then the flags
    fcntl.ioctl(any_socket.fileno(), _SIOCGIFFLAGS, request)
    request[16] |= _IFF_UP
    fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, request)
    any_socket.close()


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Moves to a network namespace of its own; False without the right to."""
    if libc.unshare(_CLONE_NEWNET) != 0:
        return False
    _raise_loopback()
    return True


def _leave_network_as_anybody(libc: ctypes.CDLL) -> None:
    """Does the same by the rights that a user namespace of its own gives to everybody
    (user_namespaces(7)); raises ``NetworkKept``."""
    uid, gid = os.getuid(), os.getgid()
    _prctl(libc, _PR_SET_DUMPABLE, 1)  # otherwise the files in /proc/self belong to root
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise NetworkKept(os.strerror(ctypes.get_errno()))
    maps = (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"))
    try:
        for name, text in maps:
            with open(f"/proc/self/{name}", "wb", buffering=0) as file:
                file.write(text.encode())
        _raise_loopback()
    except OSError as error:
        raise NetworkKept(str(error)) from error
    _drop_bounding_set(libc)


def _drop_bounding_set(libc: ctypes.CDLL) -> None:
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def _renounce(libc: ctypes.CDLL, uid: int, *, left_network: bool) -> None:
    """Gives up every privilege for good, and checks that it is gone; raises ``OSError`` otherwise.

    Where the network is still to be left it does so on the way, by the rights that anybody has.
    """
    libc.prctl(_PR_SET_NAME, b"meshpeer-spawn", 0, 0, 0)
    _prctl(libc, _PR_SET_CHILD_SUBREAPER, 1)
    if uid >= 0:
        _drop_bounding_set(libc)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if not left_network:
        _leave_network_as_anybody(libc)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    # Tasks are the same user: they must not trace the helper, nor reach its socket through /proc.
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    with open("/proc/self/status", "rb") as file:
        status = dict(line.rstrip(b"\n").split(b":\t", 1) for line in file if b":\t" in line)
    if any(int(status[name], 16) for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapAmb") if name in status):
        raise OSError(errno.EPERM, "capabilities are left")
    if uid >= 0 and (set(status[b"Uid"].split()) != {b"%d" % uid} or status[b"Groups"].strip()):
        raise OSError(errno.EPERM, "the user was not changed whole")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _signal_descriptor(libc: ctypes.CDLL) -> int:
    """Blocks every signal (only the socket ends the helper) and returns a descriptor that SIGCHLD makes
    readable."""
    signals = ctypes.create_string_buffer(_SIGSET_BYTES)
    libc.sigfillset(signals)
    libc.sigprocmask(2, signals, None)
    libc.sigemptyset(signals)
    libc.sigaddset(signals, _SIGCHLD)
    descriptor: int = libc.signalfd(-1, signals, _SFD_CLOEXEC_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd failed")
    return descriptor


def _serve(libc: ctypes.CDLL, agent: _socket.socket, children: int, *, own_uid: bool) -> None:
    poller = select.poll()
    poller.register(agent.fileno(), select.POLLIN)
    poller.register(children, select.POLLIN)
    while True:
        data, ancillary, _, _ = agent.recvmsg(
            MESSAGE_BYTES_MAX, _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return
        if data[:1] not in (b"R", b"M"):
            continue  # a signal for a task that has ended meanwhile
        descriptors = [
            int.from_bytes(content[at : at + 4], sys.byteorder)
            for _, _, content in ancillary
            for at in range(0, len(content), 4)
        ]
        try:
            stdout, stderr, *large = descriptors
            task = os.pread(large[0], os.fstat(large[0]).st_size, 0) if large else data[1:]
            started = _spawn(*unpack_task(task), stdout, stderr)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if isinstance(started, bytes):
            agent.send(started)
            continue
        status = _watch(agent, children, poller, started, own_uid=own_uid)
        if status is None:
            return
        killed = _end_all(own_uid=own_uid)
        if own_uid:
            _remove_ipc(libc)
        agent.send(b"ended %d %d" % (status, killed))


def _spawn(
    folder: bytes,
    argv: list[bytes],
    env: dict[bytes, bytes],
    rlimits: list[int],
    stdout: int,
    stderr: int,
) -> int | bytes:
    """Starts a task in a session of its own, by vfork, and returns its pid, or the reply that says why
    not."""
    stage = b"folder"
    try:
        for kind, most in zip(_INHERITED_RLIMITS, rlimits[1:], strict=True):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if most and (hard < 0 or most < hard) else hard, hard))
        os.chdir(folder)
        stage = b"find"
        program = _find(argv[0], env.get(b"PATH", b""))
        stage = b"exec"
        pid = os.posix_spawn(
            program,
            argv,
            env,
            file_actions=((os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)),
            setsid=True,
            setsigmask=(),
            setsigdef=_ALL_SIGNALS,
        )
    except OSError as error:
        return b"failed %s %d" % (stage, error.errno or 0)
    _bound(pid, rlimits)
    return pid


def _bound(pid: int, rlimits: list[int]) -> None:
    """Narrows the limits of a task that has just started, so that it can't widen them again.

    It may have forked before, and that child keep the helper's own: a race that can be won against rlimits
    only, and never against control groups. RLIMIT_AS can't be inherited: the helper needs more to spawn.
    """
    try:
        with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"%d" % TASK_OOM_SCORE_ADJ)
    except OSError:  # as for the helper's own; or the task has ended
        pass
    for kind, most in zip(_TASK_RLIMITS, rlimits, strict=True):
        if most:
            try:
                hard = resource.prlimit(pid, kind)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(pid, kind, (most, most))
            except (OSError, ValueError):
                pass


def _find(program: bytes, path: bytes) -> bytes:
    places = [program] if b"/" in program else [os.path.join(folder, program) for folder in path.split(b":")]
    reason = errno.ENOENT
    for place in places:
        try:
            if not stat.S_ISREG(os.stat(place).st_mode):
                reason = errno.EACCES
            elif os.access(place, os.X_OK):
                return place
            else:
                reason = errno.EACCES
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = error.errno or errno.EACCES
    raise OSError(reason, "not found")


def _watch(
    agent: _socket.socket, children: int, poller: select.poll, pid: int, *, own_uid: bool
) -> int | None:
    """Waits for the task and returns its wait status, or None when the agent is gone."""
    announced = False
    while True:
        ready = poller.poll(None if announced else LONG_AFTER_MS)
        if not ready:
            agent.send(b"pid %d" % pid)
            announced = True
        for descriptor, _ in ready:
            if descriptor == children:
                os.read(children, _SIGSET_BYTES)
                status = _reap(pid)
                if status is not None:
                    return status
            else:
                request = agent.recv(1)
                if request == b"T":
                    _send_signal(-pid, _SIGTERM)
                elif request == b"K":
                    _kill_all(pid, own_uid=own_uid)
                elif not request:
                    return None


def _reap(pid: int) -> int | None:
    """Collects every child that has ended (orphans come to us too), and returns the status of ``pid`` if it
    did."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = status


def _end_all(*, own_uid: bool) -> int:
    """Kills what is left, and returns once it is gone: how many it was."""
    killed = 0
    while _kill_all(0, own_uid=own_uid):
        try:
            killed += os.WTERMSIG(os.waitpid(-1, 0)[1]) == _SIGKILL
        except ChildProcessError:
            break
    return killed


def _remove_ipc(libc: ctypes.CDLL) -> None:
    """Removes this user's System V objects, which outlive processes: the user's next task may be another
    job's (sysvipc(7); RemoveIPC= in systemd.exec(5))."""
    me = b"%d" % os.getuid()
    for kind, owner in ((b"shm", 7), (b"sem", 4), (b"msg", 7)):
        try:
            with open(b"/proc/sysvipc/" + kind, "rb") as file:
                rows = [row for row in map(bytes.split, file) if me in row[owner : owner + 3 : 2]]
        except OSError:  # a kernel without
            continue
        for number in [int(row[1]) for row in rows]:  # owned, or made and given to another
            if kind == b"shm":
                libc.shmctl(number, _IPC_RMID, None)
            elif kind == b"sem":
                libc.semctl(number, 0, _IPC_RMID)
            else:
                libc.msgctl(number, _IPC_RMID, None)


def _kill_all(pid: int, *, own_uid: bool) -> bool:
    """Kills every process of this user, or else ``pid``'s group and every child (theirs come to us when they
    die).

    Says whether there may be somebody to wait for. One ``kill(-1)`` outruns a fork bomb: Linux delivers it
    under the lock that fork takes, and spares the caller.
    """
    if own_uid:
        _send_signal(-1, _SIGKILL)
        return True
    if pid:  # not reaped yet, so the number is still this task's
        _send_signal(-pid, _SIGKILL)
    killed = [child for child in _children() if _send_signal(child, _SIGKILL)]
    return bool(killed)


def _children() -> list[int]:
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", "rb", buffering=0) as file:
            return [int(word) for word in (file.read(ANCESTRY_BYTES_MAX) or b"").rpartition(b" ")[0].split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == me]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int((file.read(1024) or b"").rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _send_signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[5] != "0")
