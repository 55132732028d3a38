"""What goes wrong in a lab: one line that says what, one that says what to do."""

from __future__ import annotations

from collections.abc import Sequence


class LabError(Exception):
    """A lab could not be made, changed or found."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}\n  {hint}" if hint else what)
        self.what = what
        self.hint = hint


class CommandFailed(LabError):
    """A command in a node, or one that sets up a lab, ended with a code other than 0 or took too long."""

    def __init__(self, where: str, argv: Sequence[str], code: int | None, stdout: str, stderr: str) -> None:
        outcome = "took too long" if code is None else f"exited with {code}"
        shown = "\n".join(part.rstrip() for part in (stdout, stderr) if part.strip())
        super().__init__(f"{where}$ {' '.join(argv)}: {outcome}", shown.replace("\n", "\n  "))
        self.argv = tuple(argv)
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
