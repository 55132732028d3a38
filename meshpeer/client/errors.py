"""What a caller of the client is told beyond the agent's own faults."""

from __future__ import annotations

from typing import Final

from meshpeer.core.errors import LocalFault, MeshpeerError

LOGS_HINT: Final = "see `meshpeer jobs logs` for what it printed"
MODULES_HINT: Final = (
    "send the module along, by Options(carry=...) or files=..., or install it on the workers"
)


class Unpicklable(LocalFault):
    """A function or an argument can't be sent: it says which, and what in it is the trouble."""


class RemoteError(MeshpeerError):
    """A task failed. What its function raised is the cause (``__cause__``) where it could be unpickled here.

    ``kind`` is the exception's type, empty where no function raised anything (killed, timed out, refused);
    ``traceback`` is text, of the machine that ran it. It is a note of the exception as well, so that an
    uncaught one shows it.
    """

    def __init__(
        self, what: str, *, task: str, node: str | None = None, kind: str = "", traceback: str = ""
    ) -> None:
        super().__init__(what, MODULES_HINT if kind == "ModuleNotFoundError" else LOGS_HINT)
        self.task = task
        self.node = node
        self.kind = kind
        self.traceback = traceback
        where = f"{task} on {node}" if node else task
        self.add_note(f"task {where} ({self.hint})\n{traceback}".rstrip())
