"""Which end of a needed task meets a need (``when``): how that is read and judged.

One of three words, or ``{exit: 3}``, ``{exit: [3, 4]}``: the task has ended, well or badly, with one of these
codes. A task that never came to a process of its own, such as a webhook, has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshpeer.core.jobs import rules
from meshpeer.core.jobs.located import FieldPath, Located, Mapping, Sequence
from meshpeer.core.jobs.model import Need, TaskSpec
from meshpeer.core.jobs.nearest import did_you_mean
from meshpeer.core.jobs.problems import SpecError
from meshpeer.core.jobs.reading import Reader
from meshpeer.core.jobs.rules import Fault, shown

WHEN_FIELDS = ("exit",)

End = tuple[str, tuple[int, ...]]
"""``Need.when`` and ``Need.exits``."""


def read_end(reader: Reader, node: Located, path: FieldPath) -> End | None:
    """Reads ``when``; None where it can't be used."""
    if isinstance(node, Mapping):
        fields = reader.fields(node, path, WHEN_FIELDS, (), "write {exit: 3}")
        if "exit" not in fields:
            if not any(field[: len(path)] == path for field in reader.rejected):
                reader.reject(path, node, "it names no exit code", "write {exit: 3}")
            return None
        codes = _read_codes(reader, fields["exit"], (*path, "exit"))
        return (rules.EXIT, codes) if codes else None
    text = reader.text(node, path)
    if text is None or reader.sound(_word_fault(text) or text, node, path) is None:
        return None
    return text, ()


def _read_codes(reader: Reader, node: Located, path: FieldPath) -> tuple[int, ...]:
    if not isinstance(node, Sequence):
        code = reader.whole_number(node, path, 0, rules.EXIT_CODE_MAX)
        return () if code is None else (code,)
    if not node.items:
        reader.reject(path, node, "the list is empty", "name one exit code at least")
    codes = [
        reader.whole_number(item, (*path, position), 0, rules.EXIT_CODE_MAX)
        for position, item in enumerate(node.items)
    ]
    return tuple(sorted({code for code in codes if code is not None}))


def check_end(need: Need, needed: TaskSpec | None, at: FieldPath) -> Iterator[SpecError]:
    """Judges ``when`` of a need, also of one that came from elsewhere."""
    if need.when != rules.EXIT:
        fault = _word_fault(need.when)
        if fault is not None:
            yield SpecError(path=at, what=fault.what, hint=fault.hint)
        if need.exits:
            yield SpecError(path=at, what="it has exit codes that nobody asks for", hint="write {exit: 3}")
        return
    sound = all(0 <= code <= rules.EXIT_CODE_MAX for code in need.exits)
    if not need.exits or not sound or need.exits != tuple(sorted(set(need.exits))):
        what = "its exit codes are none, out of range, or out of order"
        yield SpecError(path=at, what=what, hint=f"0 to {rules.EXIT_CODE_MAX}, each once")
    if needed is not None and needed.webhook is not None:
        what = f"{shown(need.task)} is a webhook, and has no exit code"
        yield SpecError(path=at, what=what, hint=f"write {', '.join(rules.NEED_ENDS)}")


def _word_fault(text: str) -> Fault | None:
    if text in rules.NEED_ENDS:
        return None
    guess = did_you_mean(text, rules.NEED_ENDS)
    return Fault(
        f"{shown(text)} is no end of a task", guess or f"write {', '.join(rules.NEED_ENDS)} or {{exit: 3}}"
    )
