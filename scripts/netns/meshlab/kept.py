"""Labs that go on without the program that started them: a keeper process owns each until it is told to end
it."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from meshlab.errors import LabError
from meshlab.lab import Lab
from meshlab.node import Node, parse_addresses
from meshlab.registry import LabRecord
from meshlab.spec import LabSpec

_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def start_kept(spec: LabSpec) -> str:
    """Starts a lab in a process of its own and returns the lab's name; ``registry.end_lab`` ends it.

    Raises LabError, and leaves nothing behind, when it can't be started.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _keep(spec, writer)
    os.close(writer)
    with open(reader) as pipe:
        outcome, _, text = pipe.read().partition("\n")
    if outcome == "ready":
        return text
    what, _, hint = text.partition("\n  ")
    raise LabError(what or "the lab did not start", hint)


def attach(record: LabRecord) -> dict[str, Node]:
    """Returns the nodes and routers of a lab that another process owns."""
    return {
        name: Node(name, process.pid, parse_addresses(record.addresses[name]))
        for name, process in record.inits.items()
    }


def _keep(spec: LabSpec, writer: int) -> NoReturn:
    """What the keeper does: own the lab until a signal."""
    code = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        with Lab(spec, kept=True) as lab:
            os.write(writer, f"ready\n{lab.name}".encode())
            os.close(writer)
            signal.sigwait(_ENDING)
        code = 0
    except LabError as error:
        os.write(writer, f"failed\n{error}".encode())
    finally:
        # Not sys.exit: what the parent registered to run at its end is the parent's.
        os._exit(code)
