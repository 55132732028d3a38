"""One lab machine: its init process, and how commands get into its namespaces.

A command started here is a child of the caller: ``Popen.terminate()`` reaches the program itself, its exit
code is its own, and it is killed with the node when the node ends.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import IO

from meshlab.errors import CommandFailed, LabError
from meshlab.kernel import children_born_in
from meshlab.wiring import Address

STATE_DIR = "/var/lib/meshpeer"
LOG_BYTES_SHOWN = 20_000
_CHECKOUT = Path(__file__).resolve().parents[3]
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("TERM", "TZ", "NO_COLOR", "COLUMNS", "LINES")

Stream = int | IO[str] | IO[bytes] | None


class Node:
    """A running lab machine (or router). Made by ``Lab``, or by ``lab exec`` for one that already runs."""

    def __init__(self, name: str, init_pid: int, addresses: Mapping[str, Sequence[Address]]) -> None:
        self.name = name
        self.init_pid = init_pid
        self._addresses = {lan: tuple(found) for lan, found in addresses.items()}
        self._children: list[subprocess.Popen[str]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, with its output kept as text.

        ``timeout`` is in seconds. Raises CommandFailed, with the output, when it takes longer, and with
        ``check`` when the exit code is not 0.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        process = self.popen(argv, stdin=stdin, stdout=pipe, stderr=pipe, env=env, cwd=cwd)
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            text = [_text(part) for part in (error.stdout, error.stderr)]
            raise CommandFailed(self.name, argv, None, *text) from error
        except BaseException:
            _kill(process)
            raise
        if check and process.returncode != 0:
            raise CommandFailed(self.name, argv, process.returncode, stdout, stderr)
        return subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> subprocess.Popen[str]:
        """Starts a command and returns at once; signals sent to the result reach the command itself.

        ``env`` is added to the node's clean environment; ``cwd`` is the caller's own unless given (a node
        sees the machine's file system, but for the folders that are its own).
        """
        # A harness that was started in the background ignores Ctrl-C, and its children would too.
        command = ["env", "--default-signal", "-C", str(cwd or Path.cwd()), *argv]
        entering = [f"--{kind}=/proc/{self.init_pid}/ns/{name}" for kind, name in _ENTERED]
        with children_born_in(self.init_pid):
            process = subprocess.Popen(
                ["nsenter", *entering, "--", *command],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**node_environment(), **(env or {})},
                text=True,
            )
        self._children = [*(child for child in self._children if child.poll() is None), process]
        return process

    def enter_argv(self, argv: Sequence[str]) -> list[str]:
        """Returns a command line that runs ``argv`` in this node, for callers that start processes by
        themselves.

        Between the caller and the command stands ``nsenter``: a signal ends that one, not the command.
        """
        kinds = ["--net", "--mount", "--uts", "--pid"]
        return ["nsenter", f"--target={self.init_pid}", *kinds, "--", "env", "-C", str(Path.cwd()), *argv]

    def address(self, lan: str | None = None, family: int = 4) -> str:
        """Returns this node's address on a LAN (its first, unless named); ``family`` is 4 or 6.

        Raises LabError when it has none.
        """
        for name, addresses in self._addresses.items():
            for address in addresses:
                if lan in (None, name) and address.version == family:
                    return str(address)
        raise LabError(f"{self.name} has no IPv{family} address on {lan or 'any LAN'}", "see the lab's file")

    def addresses(self) -> tuple[Address, ...]:
        """Returns all addresses of this node."""
        return tuple(address for found in self._addresses.values() for address in found)

    def path(self, inside: str) -> Path:
        """Returns a path by which the caller can reach a file of the node's own folders, without a command.

        Symbolic links that are absolute lead out of the node: use /run, not /var/run.
        """
        return Path(f"/proc/{self.init_pid}/root{inside}")

    def put_file(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Writes a file in the node, with the folders that it needs."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def pgrep(self, pattern: str) -> list[int]:
        """Returns the PIDs, as the node itself numbers them, whose command line matches a regular
        expression."""
        found: list[int] = []
        for entry in self.path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != "1":
                try:
                    words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if words != [b""] and re.search(pattern, b" ".join(words).decode(errors="replace")):
                    found.append(int(entry.name))
        return sorted(found)

    def kill(self, pid: int, signal: Signals = SIGTERM) -> None:
        """Sends a signal to a PID as the node itself numbers them."""
        self.run(["sh", "-c", f"kill -{int(signal)} {pid}"])

    def pause(self) -> None:
        """Stops every process of the node, as a suspended machine would be; the kernel still answers
        pings."""
        self._signal_all(SIGSTOP)

    def resume(self) -> None:
        """Continues what ``pause`` stopped."""
        self._signal_all(SIGCONT)

    def crash(self, *, wipe_state: bool = False) -> None:
        """Kills every process with no warning and empties /run, as after a power cut; tunnels go too.

        The state folder survives unless ``wipe_state``.
        """
        self._signal_all(SIGKILL)
        kept = "! -path '/run/.meshlab*' ! -path /run/wireguard ! -path /run/lock"
        removal = f"find /run -xdev -mindepth 1 {kept} -delete"
        links = "for l in $(ip -o link show type wireguard | cut -d: -f2); do ip link del $l; done"
        wiping = f"; find {STATE_DIR} -xdev -mindepth 1 -delete" if wipe_state else ""
        self.run(["sh", "-c", f"{removal}; {links}{wiping}"])

    def limit_state_dir(self, size: str) -> None:
        """Makes the state folder's file system as small as ``size`` (such as ``4m``); what is in it stays.

        Raises CommandFailed when it already holds more.
        """
        self.run(["mount", "-o", f"remount,size={size}", STATE_DIR])

    def logs(self) -> str:
        """Returns the ends of all files named ``*.log`` that the node's programs left in its own folders."""
        parts: list[str] = []
        for folder in ("/var/log", STATE_DIR, "/run"):
            for file in sorted(self.path(folder).rglob("*.log")):
                inside = "/" + str(file).split("/root/", 1)[1]
                if file.is_file() and "/.meshlab/" not in inside:
                    text = file.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace")
                    parts.append(f"--- {self.name}:{inside}\n{text.rstrip()}\n")
        return "".join(parts)

    def reap(self) -> None:
        """Collects the commands that ended with the node; an init can't go while one is a zombie of ours."""
        for child in self._children:
            child.poll()

    def _signal_all(self, signal: Signals) -> None:
        # kill(-1) spares init and the sender, which is the shell that has the builtin.
        self.run(["sh", "-c", f"kill -{int(signal)} -1"], check=False)


_ENTERED = (("net", "net"), ("uts", "uts"), ("mount", "mnt"))


def node_environment() -> dict[str, str]:
    """Returns the environment of a fresh login in a node, with the checkout's commands on PATH."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **kept,
        "PATH": f"{_CHECKOUT}/.venv/bin:{_SYSTEM_PATH}",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
    }


def start_init(
    name: str, *, alive_fd: int, private: bool, forward: bool, remove_at_end: Path | None
) -> subprocess.Popen[str]:
    """Starts the init of a new machine; returns before it is ready, so that several can start together."""
    spec: dict[str, object] = {
        "name": name,
        "alive_fd": alive_fd,
        "private": private,
        "forward": forward,
        "remove_at_end": str(remove_at_end) if remove_at_end else "",
    }
    program = str(Path(__file__).with_name("pid1.py"))
    with children_born_in(None):
        return subprocess.Popen(
            [sys.executable, "-I", "-S", program, json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(alive_fd,),
            cwd="/",
            text=True,
            # Its own session: Ctrl-C at the terminal is for the program in front, not for the machine.
            start_new_session=True,
        )


def await_ready(name: str, init: subprocess.Popen[str]) -> None:
    """Waits until a machine can be used. Raises LabError with what its init said when it can't."""
    assert init.stdout is not None
    assert init.stderr is not None
    if init.stdout.readline() == "ready\n":
        init.stdout.close()
        init.stderr.close()
        return
    said = init.stderr.read().strip().splitlines()
    raise LabError(
        f"node {name} did not start: {said[-1] if said else 'no reason given'}", "see the lines above"
    )


def parse_addresses(texts: Mapping[str, Sequence[str]]) -> dict[str, tuple[Address, ...]]:
    """Reads addresses back from a state file."""
    return {lan: tuple(ipaddress.ip_address(text) for text in found) for lan, found in texts.items()}


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a command without reading on: a daemon that kept its pipes open must not make this wait."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _text(part: str | bytes | None) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else part or ""
