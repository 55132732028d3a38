"""What is staged for a function, which calls are refused before they start, and what a report is read for."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshpeer.core.errors import LocalFault, MeshpeerError, PeerFault
from meshpeer.core.ids import Digest, JobId, NodeId
from meshpeer.core.jobs.calls import HEAD_BYTES, ROW_BYTES, encode_calls
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Array, FileRef, JobRecord, JobSpec, PythonCall, TaskSpec
from meshpeer.core.scheduler.messages import Attempt, Granted, StartAttempt
from meshpeer.runtime.ports import AttemptOutcome, AttemptPlan, BlobRef, PythonFound
from meshpeer.runtime.python_calls import PythonCalls
from meshpeer.sim.store import MemoryBlobs

JOB = JobId("j" + "a" * 19)
ME = NodeId(b"m" * 32)
PLAN = AttemptPlan(key="k", argv=(), env=(), cwd="", staged=(), outputs=("mine",), timeout_s=1)
EMPTY = BlobRef(digest=Digest(b"e" * 32), size=0)


class OnePython:
    """Implements ``runtime.ports.Interpreter``."""

    kit = b"kit"
    cloudpickle = "3.1"

    def likely_version(self) -> str:
        return "3.11"

    async def find(self) -> PythonFound:
        return PythonFound(program="/usr/bin/python3", version="3.11")


async def planned(blobs: MemoryBlobs, task: TaskSpec, data: bytes = b"", *, number: int = 0) -> AttemptPlan:
    ref = await blobs.add_bytes(data)
    files = (FileRef(path="calls", digest=ref.digest, size=ref.size),)
    record = JobRecord(
        job=JOB,
        submitter=ME,
        submitted_at_us=0,
        spec=JobSpec(name="x", tasks=(task,), files=files),
    )
    granted = Granted(Attempt(number, 1, 2))
    effect = StartAttempt(job=JOB, record=record, graph=Graph.of(record.spec), owner=ME, granted=granted)
    return await PythonCalls(blobs, OnePython()).plan(effect, PLAN)


async def test_a_named_function_is_staged_as_a_document(tmp_path: Path) -> None:
    task = TaskSpec(
        name="t",
        cwd="a/b",
        python=PythonCall(call="m:f", arguments='{"args":["${attempt}"]}'),
    )
    plan = await planned(MemoryBlobs(tmp_path), task)
    assert plan.argv == (
        "/usr/bin/python3",
        "../../.meshpeer/kit.pyz",
        ".meshpeer/call",
        "json",
        "results/t.json",
        "results/t.error.json",
    )
    staged = {one.path: one.source for one in plan.staged}
    assert staged == {".meshpeer/kit.pyz": b"kit", ".meshpeer/call": b'{"call":"m:f","args":["2"]}'}
    assert (plan.outputs, plan.report) == (("mine", "results/t.json"), "results/t.error.json")


async def test_of_many_pickled_calls_one_is_cut_out(tmp_path: Path) -> None:
    calls = [(b"function", b"first"), (b"function", b"second")]
    data = encode_calls((3, 11), "3.1", calls)
    task = TaskSpec(name="t", array=Array(size=2), python=PythonCall(calls="calls", result="pickle"))
    plan = await planned(MemoryBlobs(tmp_path), task, data, number=1)
    (call,) = [one.source for one in plan.staged if one.path == ".meshpeer/call"]
    assert isinstance(call, bytes)
    assert call[:HEAD_BYTES] == data[:HEAD_BYTES]
    assert call[HEAD_BYTES + ROW_BYTES :] == b"functionsecond"
    assert plan.outputs[-1] == "results/t.1.pickle"


@pytest.mark.parametrize(
    ("data", "fault", "what"),
    [
        (encode_calls((3, 12), "3.1", [(b"f", b"a")]), LocalFault, "by Python 3.12, and this node .* 3.11"),
        (encode_calls((3, 11), "9.9", [(b"f", b"a")]), LocalFault, "cloudpickle 9.9, and this node has 3.1"),
        (encode_calls((3, 11), "3.1", [(b"f", b"a")])[:40], PeerFault, "cut off"),
        (encode_calls((3, 11), "3.1", [(b"f", b"a")])[:-1], PeerFault, "outside of itself"),
        (encode_calls((3, 11), "3.1", []), PeerFault, "has 0 of them"),
        (b"{}", PeerFault, "cut off"),
    ],
)
async def test_calls_that_can_not_be_made_here_are_refused_before_they_start(
    tmp_path: Path, data: bytes, fault: type[MeshpeerError], what: str
) -> None:
    task = TaskSpec(name="t", python=PythonCall(calls="calls"))
    with pytest.raises(fault, match=what) as caught:
        await planned(MemoryBlobs(tmp_path), task, data)
    assert len(caught.value.what) <= 300


@pytest.mark.parametrize(
    ("report", "error"),
    [
        (b'{"type": "ValueError", "message": "no\\nluck"}', "ValueError: no"),
        (b'{"type": "KeyError", "message": ""}', "KeyError"),
        (b'{"type": "CannotCall", "message": "there is no f in m"}', "there is no f in m"),
        (b'{"type": "E", "message": "\\u001b[31mred"}', "E: ?[31mred"),
        (b'{"type": "", "message": ""}', "exit code 1"),
        (b'{"type": 3}', "exit code 1"),
        (b"\xff", "exit code 1"),
    ],
)
async def test_the_error_of_a_task_is_what_its_function_raised(
    tmp_path: Path, report: bytes, error: str
) -> None:
    blobs = MemoryBlobs(tmp_path)
    ref = await blobs.add_bytes(report)
    outcome = AttemptOutcome(
        exit_code=1,
        error="exit code 1",
        started_at_unix_s=0,
        finished_at_unix_s=1,
        stdout=EMPTY,
        stderr=EMPTY,
        outputs=(FileRef(path="r", digest=ref.digest, size=ref.size),),
    )
    calls = PythonCalls(blobs, OnePython())
    plan = AttemptPlan(key="k", argv=(), env=(), cwd="", staged=(), outputs=(), timeout_s=0, report="r")
    assert (await calls.told(plan, outcome)).error == error
