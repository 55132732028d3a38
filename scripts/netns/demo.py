"""The demo: founds a mesh on one of three machines, joins the others, and lets them render a picture
together.

Every command is one that a user types, and is shown before it runs. As root the machines are nodes of a lab,
with a real WireGuard interface each; without, they are three agents on this machine's loopback that only
lack the interface.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from demo_machines import CHECKOUT, Machine, Machines, choose_machines
from demo_table import JobTask, who_did_what
from meshlab import LabError

COMMAND_TIMEOUT_S = 120.0
JOB_TIMEOUT_S = 600.0
JOB_SEEN_TIMEOUT_S = 30.0
INVITE_SHOWN = 44
JOB_FILE = "docs/examples/render.yaml"
OUTPUT = "out/"
PICTURE = "poster.png"


def main() -> int:
    """Runs the demo; returns 0 when the picture is there."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    began = time.monotonic()
    machines = choose_machines(rootless=options.rootless, keep=options.keep)
    demo = _Demo(machines)
    code = 1
    interrupted = False
    try:
        machines.start()
        demo.run()
        code = 0
    except _Failed as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        print(machines.logs(), end="", file=sys.stderr)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        code = 5
    except (KeyboardInterrupt, SystemExit):
        interrupted = True
        code = 130
        print("\ndemo: interrupted", file=sys.stderr)
    finally:
        kept = options.keep and not interrupted and machines.started
        if not kept:
            machines.end()
    if kept:
        print("\n" + machines.how_to_use())
    if code == 0:
        print(f"\ndone in {time.monotonic() - began:.0f} s" + ("" if kept else "; all of it is cleaned up"))
    return code


class _Failed(Exception):
    """A command of the demo did not do what the demo needs."""


class _Demo:
    """The story, step by step."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._bold = (
            ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
        )

    def run(self) -> None:
        alpha, *others = self._machines.all()
        self._say(self._machines.describe())
        self._found(alpha)
        self._join(alpha, others)
        self._look(alpha)
        self._ping(alpha, others[0])
        before = _files(CHECKOUT / OUTPUT)
        job = self._render(alpha)
        self._report(alpha, job, before)

    def _found(self, alpha: Machine) -> None:
        self._say(f"Found a mesh on {alpha.name}.")
        self._type(alpha, ["meshpeer", "init", "--name", alpha.name, *alpha.agent_flags, "--detach"])

    def _join(self, alpha: Machine, others: Sequence[Machine]) -> None:
        self._say("Invite the others, and join them.")
        invite = self._ask(alpha, ["meshpeer", "invite", "--uses", str(len(others)), "--quiet"]).strip()
        if not invite or "\n" in invite:
            raise _Failed(f"`meshpeer invite --quiet` printed {invite!r}, which is not one line")
        print(_shorten(invite))
        for machine in others:
            began = time.monotonic()
            flags = ["--name", machine.name, *machine.agent_flags, "--detach"]
            self._type(machine, ["meshpeer", "join", invite, *flags], hide=invite)
            print(f"({machine.name} joined in {time.monotonic() - began:.1f} s)")

    def _look(self, alpha: Machine) -> None:
        self._say(f"What {alpha.name} knows.")
        self._type(alpha, ["meshpeer", "status"])
        self._type(alpha, ["meshpeer", "peers"])

    def _ping(self, alpha: Machine, other: Machine) -> None:
        self._say(f"Reach {other.name}.")
        if self._machines.has_interfaces:
            address = self._overlay_address(alpha, other)
            self._type(alpha, ["ping", "-c", "3", "-i", "0.2", "-W", "5", address])
        else:
            print("(no interface, so no plain ping: links only)")
        self._type(alpha, ["meshpeer", "ping", other.name])

    def _overlay_address(self, alpha: Machine, other: Machine) -> str:
        peers = json.loads(self._ask(alpha, ["meshpeer", "peers", "--json"], shown=False))
        for peer in peers:
            if peer["name"] == other.name:
                return str(peer["ipv4"])
        raise _Failed(f"{alpha.name} does not list {other.name} among its peers")

    def _render(self, alpha: Machine) -> str:
        """Submits the job and watches it from another shell, as one would; returns its id."""
        self._say("Render a picture on all three.")
        known = self._jobs(alpha)
        argv = ["meshpeer", "jobs", "submit", JOB_FILE, "--wait", "--output", OUTPUT]
        self._prompt(alpha, f"{shlex.join(argv)} &")
        pipe = subprocess.PIPE
        submit = alpha.popen(argv, stdout=pipe, stderr=subprocess.STDOUT)
        try:
            job = self._await_new_job(alpha, submit, known)
            if job:
                self._type(alpha, ["meshpeer", "jobs", "watch", job], timeout_s=JOB_TIMEOUT_S)
            said, _ = submit.communicate(timeout=JOB_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise _Failed(f"the job did not end within {JOB_TIMEOUT_S:.0f} s") from error
        finally:
            if submit.poll() is None:
                submit.kill()
                submit.communicate()
        print(said, end="")
        if submit.returncode != 0:
            raise _Failed(f"`{shlex.join(argv)}` exited with {submit.returncode}")
        return job or min(self._jobs(alpha) - known)

    def _await_new_job(self, alpha: Machine, submit: subprocess.Popen[str], known: set[str]) -> str | None:
        """Returns the id of the job that ``submit`` made, or None when it ended before it was seen."""
        deadline = time.monotonic() + JOB_SEEN_TIMEOUT_S
        while time.monotonic() < deadline:
            if new := self._jobs(alpha) - known:
                return min(new)
            if submit.poll() is not None:
                return None
            time.sleep(0.1)
        raise _Failed(f"no job appeared within {JOB_SEEN_TIMEOUT_S:.0f} s of its submission")

    def _jobs(self, alpha: Machine) -> set[str]:
        jobs = json.loads(self._ask(alpha, ["meshpeer", "jobs", "list", "--json"], shown=False))
        return {str(job["id"]) for job in jobs}

    def _report(self, alpha: Machine, job: str, before: dict[Path, int]) -> None:
        self._say("Who did what.")
        tasks: list[JobTask] = json.loads(self._ask(alpha, ["meshpeer", "jobs", "tasks", job, "--json"]))
        print("\n".join(who_did_what(tasks)))
        fresh = [path for path, changed in _files(CHECKOUT / OUTPUT).items() if before.get(path) != changed]
        pictures = [path for path in fresh if path.name == PICTURE]
        if not pictures:
            raise _Failed(f"the job ended, but there is no new {PICTURE} in {OUTPUT}")
        self._say(f"The picture: {pictures[0]} ({pictures[0].stat().st_size:,} bytes)")
        for path in fresh:
            if path not in pictures:
                print(f"(and beside it: {path.name})")
        print("Next:")
        print(f"  look at {JOB_FILE}, the whole job in a few lines")
        print("  scripts/demo --keep      leaves the three machines running, for commands of your own")
        print(
            "  meshpeer init            on a machine of yours, then `meshpeer invite`, and `join` on the next"
        )

    def _type(
        self, machine: Machine, argv: Sequence[str], *, hide: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> None:
        """Shows a command and runs it at this terminal."""
        shown = shlex.join(argv)
        self._prompt(machine, shown.replace(shlex.quote(hide), _shorten(hide)) if hide else shown)
        process = machine.popen(argv)
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise _Failed(f"`{' '.join(argv[:2])}` on {machine.name} took over {timeout_s:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != 0:
            raise _Failed(f"`{' '.join(argv[:2])}` on {machine.name} exited with {code}")

    def _ask(self, machine: Machine, argv: Sequence[str], *, shown: bool = True) -> str:
        """Runs a command for what it prints."""
        if shown:
            self._prompt(machine, shlex.join(argv))
        process = machine.popen(argv, stdout=subprocess.PIPE)
        try:
            answer, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise _Failed(f"`{shlex.join(argv)}` on {machine.name} gave no answer") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if process.returncode != 0:
            raise _Failed(f"`{shlex.join(argv)}` on {machine.name} exited with {process.returncode}")
        return answer

    def _say(self, text: str) -> None:
        print(f"\n{self._bold[0]}# {text}{self._bold[1]}", flush=True)

    def _prompt(self, machine: Machine, command: str) -> None:
        print(f"{self._bold[0]}{machine.name}${self._bold[1]} {command}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/demo", description="Three machines, a mesh, a picture.")
    parser.add_argument(
        "--keep", action="store_true", help="leave the machines running, and say how to enter them"
    )
    parser.add_argument("--rootless", action="store_true", help="on loopback with no interface, also as root")
    return parser.parse_args()


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


def _shorten(invite: str) -> str:
    return invite if len(invite) <= INVITE_SHOWN else f"{invite[:INVITE_SHOWN]}..."


def _files(folder: Path) -> dict[Path, int]:
    """All files below a folder, with the time of their last change in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(main())
