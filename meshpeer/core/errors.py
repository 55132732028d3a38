"""Errors sorted by whose fault they are, each with what is wrong and what to do about it.

``str(error)`` is one line that says what is wrong; ``error.hint`` is one line that says what to do. The
command
line prints exactly these two and exits with ``error.exit_code``. Bugs raise ``InvariantBroken``, which is not
a
``MeshpeerError``: nobody should catch it.
"""

from __future__ import annotations


class MeshpeerError(Exception):
    """Base of every error that a person may read."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class PeerFault(MeshpeerError):
    """A peer sent what the protocol does not allow; its input was rejected whole and nothing changed."""


class LocalFault(MeshpeerError):
    """The caller asked for what is impossible or malformed; nothing changed."""

    exit_code = 2


class NotRunning(MeshpeerError):
    """No agent answers on this machine's control socket."""

    exit_code = 3


class Refused(MeshpeerError):
    """The mesh or this node's own rules say no: not admitted, not allowed, taken."""

    exit_code = 4


class EnvironmentFault(MeshpeerError):
    """This machine lacks something or failed at something: a tool, a right, a port, disk space."""

    exit_code = 5


class StoreFailed(EnvironmentFault):
    """The journal could not be written; nothing that waited for the write was released."""


class InvariantBroken(AssertionError):
    """A bug: a state that the code promises can't happen. Carries the story of the object."""
