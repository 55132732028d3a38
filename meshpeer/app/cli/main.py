"""``meshpeer``: runs one command and ends with its exit code.

0 done; 1 it failed; 2 wrong usage; 3 no agent is running; 4 refused; 5 the environment lacks something;
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from meshpeer.app.cli import (
    charter,
    dashboard,
    doctor,
    faults,
    hosts,
    invites,
    issuer,
    jobs,
    look,
    map_command,
    mesh,
    revoke,
    root,
    rotate,
    service,
    sim,
    why,
)
from meshpeer.app.cli.commands import group

PROGRAM = "meshpeer"
_HELP = """One private WireGuard network and one job scheduler over your own machines, with no controller."""
_EXAMPLES = """
Examples:
  meshpeer init                          found a mesh on this machine
  meshpeer invite                        make an invite for another machine
  meshpeer join INVITE                   join, on the other machine
  meshpeer peers                         who is in, and how they are reached
  meshpeer jobs submit film.yaml --wait  run a job on all of them
"""


def build() -> typer.Typer:
    """Returns the whole command line."""
    app = group(PROGRAM, _HELP, epilog=_EXAMPLES)
    for part in (
        mesh,
        invites,
        look,
        map_command,
        dashboard,
        hosts,
        why,
        doctor,
        charter,
        revoke,
        rotate,
        issuer,
        root,
        jobs,
        service,
        sim,
    ):
        part.add_to(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits; errors come out as two lines on standard error."""
    _open_streams()
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def run_lent(arguments: Sequence[str]) -> int:
    """Runs one more command in this process; returns its exit code, its errors told."""
    return _run(list(arguments))


def _open_streams() -> None:
    """Gives a process that was started without standard streams (``>&-``) some that lead nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  it lasts as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        arguments = ["version"]
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        command = typer.main.get_command(build())
        outcome: object = command.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return faults.INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last place where an error can be put into words
        return faults.report(error, command=_named(own), debug="--debug" in own)


def _named(arguments: list[str]) -> str:
    """Returns the command that these arguments name, as far as they do, for "see ... --help"."""
    words = [PROGRAM]
    command = typer.main.get_command(build())
    for argument in arguments:
        inner = getattr(command, "commands", {}).get(argument)
        if inner is not None:
            words.append(argument)
            command = inner
    return " ".join(words)
