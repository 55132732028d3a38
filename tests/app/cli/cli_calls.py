"""What a call of the command line came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> object:
        assert self.out.count("\n") == 1, "one document, on one line where nobody reads along"
        return msgspec.json.decode(self.out)

    @property
    def two_lines(self) -> tuple[str, str]:
        """What is wrong, and what to do: exactly two lines."""
        what, hint = self.err.splitlines()
        assert what.startswith("error: ")
        assert hint.startswith(" hint: ")
        return what.removeprefix("error: "), hint.removeprefix(" hint: ")


class Call(Protocol):
    """Runs ``meshpeer`` with these arguments."""

    def __call__(self, *arguments: str) -> Ran: ...
