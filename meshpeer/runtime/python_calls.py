"""Makes an attempt of a function: which Python runs it, the kit and the call that are staged, and what its
report says when it failed.

Pickles are only cut out of their file here. The versions in its head are compared with this node's before
anything starts: byte code of another Python can't be run, and would not fail in a way that anybody
understands.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from meshpeer.core.errors import LocalFault, PeerFault
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.calls import (
    HEAD_BYTES,
    ROW_BYTES,
    CallsHead,
    decode_head,
    decode_row,
    row_offset,
)
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.python import KIT_FOLDER, call_document, calls_file, report_path, result_path
from meshpeer.core.scheduler.messages import StartAttempt
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, Blobs, Interpreter, PythonFound, StagedFile

KIT: Final = f"{KIT_FOLDER}/kit.pyz"
CALL: Final = f"{KIT_FOLDER}/call"
REPORT_BYTES_MAX: Final = 1024 * 1024
ERROR_CHARACTERS_MAX: Final = 250


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    message: str = ""


@dataclass(slots=True)
class PythonCalls:
    """Functions as attempts of this node."""

    blobs: Blobs
    interpreter: Interpreter

    async def plan(self, effect: StartAttempt, plan: AttemptPlan) -> AttemptPlan:
        """Returns what runs a task's function, given all else about the attempt; expects that the file of its
        calls is here. Raises ``LocalFault`` or ``PeerFault`` for a call that can't be made here, and
        ``EnvironmentFault`` where this machine has no Python."""
        task = TaskIndex(effect.granted.attempt.task)
        spec, element = effect.graph.spec_of(task), effect.graph.element_of(task)
        assert spec.python is not None
        found = await self.interpreter.find()
        if spec.python.calls:
            file = calls_file(effect.record.spec, spec.python)
            call = await self._pickled(file, element or 0, found)
        else:
            number, name = effect.granted.attempt.number, effect.graph.id_of(task)
            call = call_document(spec, element, effect.job, name, number)
        result, report = result_path(spec, element), report_path(spec, element)
        kit = posixpath.relpath(KIT, spec.cwd or ".")
        return replace(
            plan,
            argv=(found.program, kit, CALL, spec.python.result, result, report),
            staged=(
                *plan.staged,
                StagedFile(path=KIT, source=self.interpreter.kit),
                StagedFile(path=CALL, source=call),
            ),
            outputs=(*plan.outputs, result),
            report=report,
        )

    async def told(self, plan: AttemptPlan, outcome: AttemptOutcome) -> AttemptOutcome:
        """Returns an outcome whose error is what the function raised, where it left word of that."""
        report = next((file for file in outcome.outputs if file.path == plan.report), None)
        if not outcome.error or report is None or report.size > REPORT_BYTES_MAX:
            return outcome
        try:
            said = msgspec.json.decode(await self.blobs.read(report.digest, 0, report.size), type=_Report)
        except UNREADABLE:
            return outcome
        first = said.message.strip().split("\n")[0]
        own = said.type in ("CannotCall", "ResultUnfit")
        text = first if own else f"{said.type}: {first}" if first else said.type
        shown = "".join(one if one.isprintable() else "?" for one in text)[:ERROR_CHARACTERS_MAX]
        return replace(outcome, error=shown) if shown else outcome

    async def _pickled(self, file: FileRef, number: int, found: PythonFound) -> bytes:
        head = await self.blobs.read(file.digest, 0, HEAD_BYTES)
        says = decode_head(head)
        self._check_versions(says, found)
        if number >= says.count:
            raise PeerFault(
                f"the file of pickled calls has {says.count} of them, and this is number {number}"
            )
        row = await self.blobs.read(file.digest, row_offset(number), ROW_BYTES)
        parts = decode_row(row, head=says, file_bytes=file.size)
        pickles = [await self.blobs.read(file.digest, part.offset, part.size) for part in parts]
        return b"".join((head, row, *pickles))

    def _check_versions(self, says: CallsHead, found: PythonFound) -> None:
        if says.python != found.version:
            todo = f"name a Python {says.python} as python under [jobs] there, or submit from {found.version}"
            raise LocalFault(
                f"the function was pickled by Python {says.python}, and this node runs functions with Python "
                f"{found.version} ({found.program}): {todo}"
            )
        if says.cloudpickle != self.interpreter.cloudpickle:
            raise LocalFault(
                f"the function was pickled by cloudpickle {says.cloudpickle}, and this node has "
                f"{self.interpreter.cloudpickle}: install the same version on both"
            )
