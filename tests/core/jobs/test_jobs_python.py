from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from meshpeer.adapters.specfile import load_text
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import Digest, JobId
from meshpeer.core.jobs.calls import CALLS_BYTES_MAX
from meshpeer.core.jobs.check import check_job
from meshpeer.core.jobs.json_values import EXPANDED_CHARACTERS_MAX
from meshpeer.core.jobs.model import Array, FileRef, JobSpec, PythonCall, TaskSpec
from meshpeer.core.jobs.problems import InvalidJob
from meshpeer.core.jobs.python import call_document, calls_paths, report_path, result_path

JOB = JobId("j" + "a" * 19)
CALLS = FileRef(path=".meshpeer/calls", digest=Digest(b"d" * 32), size=100)


def task_of(**fields: object) -> TaskSpec:
    document = json.dumps({"name": "x", "tasks": {"t": fields}}).encode()
    return load_text(document, source_name="job.json", folder=Path("/nonexistent")).spec.tasks[0]


def errors_of(**fields: object) -> list[str]:
    try:
        task_of(**fields)
    except InvalidJob as invalid:
        return [f"{one.field.removeprefix('tasks.t')}: {one.what}" for one in invalid.errors]
    return []


def judged(spec: JobSpec) -> list[str]:
    return [one.what for one in check_job(spec)]


def test_a_function_may_stand_alone_or_with_its_arguments() -> None:
    assert task_of(python="os.path:join").python == PythonCall(call="os.path:join")
    full = task_of(python={"call": "a:B.c", "args": [1, "x", None], "kwargs": {"k": [2.5]}}).python
    assert full is not None
    assert json.loads(full.arguments) == {"args": [1, "x", None], "kwargs": {"k": [2.5]}}


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"python": {}}, [".python: it names no call"]),
        ({"python": 3}, [".python: 3 is a number here, and must be text"]),
        ({"python": "os"}, [".python.call: 'os' is no function"]),
        ({"python": "os:"}, [".python.call: 'os:' is no function"]),
        ({"python": "../os:x"}, [".python.call: '../os:x' is no function"]),
        ({"python": {"call": "a:b", "args": 1}}, [".python.args: it must be a list"]),
        ({"python": {"call": "a:b", "kwargs": [1]}}, [".python.kwargs: it must be a mapping"]),
        ({"python": {"call": "a:b", "argv": []}}, [".python.argv: unknown field 'argv'"]),
        ({"python": "a:b", "run": "true"}, [".run: it runs a program and calls a function"]),
        (
            {"python": "a:b", "webhook": {"url": "http://127.0.0.1:1/"}},
            [".python: it calls a service and a function"],
        ),
        (
            {"python": {"call": "a:b", "args": ["${index}"]}},
            [".python: '${index}' in a task without an array"],
        ),
    ],
)
def test_a_malformed_function_is_answered_by_field(fields: dict[str, object], errors: list[str]) -> None:
    assert errors_of(**fields) == errors


def test_a_function_has_what_other_tasks_have() -> None:
    task = task_of(
        python="a:b",
        array=2,
        env={"A": "b"},
        cwd="x",
        outputs=["y"],
        network="none",
        secrets=["S"],
        resources={"memory": "64MiB"},
    )
    assert (task.env, task.cwd, task.secrets, task.network) == ((("A", "b"),), "x", ("S",), "none")


def test_texts_among_the_arguments_are_expanded_and_keys_are_not() -> None:
    task = task_of(
        python={"call": "a:b", "args": ["${index}-${side}", 1], "kwargs": {"k": {"${side}": "$$${task}"}}},
        array={"side": [2, 3]},
    )
    said = json.loads(call_document(task, 1, JOB, "t[1]", 1))
    assert said == {"call": "a:b", "args": ["1-3", 1], "kwargs": {"k": {"${side}": "$t[1]"}}}


def test_arguments_that_grow_too_large_are_refused() -> None:
    word = "w" * 1_000
    many = "${word}" * (EXPANDED_CHARACTERS_MAX // len(word) + 1)
    task = task_of(python={"call": "a:b", "args": [many]}, array=[{"word": word}])
    with pytest.raises(LocalFault, match="list of arguments is too large"):
        call_document(task, 0, JOB, "t[0]", 1)


def test_no_two_tasks_put_out_their_values_at_one_path() -> None:
    plain, many = (TaskSpec(name=name, python=PythonCall(call="a:b")) for name in ("t-1", "t"))
    paths = [result_path(plain, None), *(result_path(many, n) for n in (1, 11)), result_path(many, None)]
    assert paths == ["results/t-1.json", "results/t.1.json", "results/t.11.json", "results/t.json"]
    assert report_path(many, 1) == "results/t.1.error.json"


def test_pickled_calls_are_a_file_of_the_job_that_is_not_too_large() -> None:
    python = PythonCall(calls=CALLS.path, result="pickle")
    task = TaskSpec(name="t", python=python, array=Array(size=2))
    spec = JobSpec(name="x", tasks=(task,), files=(CALLS,))
    assert judged(spec) == []
    assert calls_paths(spec) == {CALLS.path}
    assert judged(msgspec.structs.replace(spec, files=())) == ["the job has no file '.meshpeer/calls'"]
    large = msgspec.structs.replace(CALLS, size=CALLS_BYTES_MAX + 1)
    assert "16 MiB are allowed" in judged(msgspec.structs.replace(spec, files=(large,)))[0]


@pytest.mark.parametrize(
    "python",
    [
        PythonCall(),
        PythonCall(call="a:b", calls=CALLS.path),
        PythonCall(call="a:b", arguments="[1]"),
        PythonCall(call="a:b", arguments='{"args": 1}'),
        PythonCall(call="a:b", arguments='{"more": 1}'),
        PythonCall(call="a:b", arguments="{"),
        PythonCall(call="a:b", result="xml"),
        PythonCall(call="a:b", version="3.11"),
        PythonCall(calls=CALLS.path, version="3"),
        PythonCall(calls=CALLS.path, version="none"),
        PythonCall(call="a:" + "b" * 500),
    ],
)
def test_a_function_that_no_file_could_say_is_refused_wherever_it_comes_from(python: PythonCall) -> None:
    spec = JobSpec(name="x", tasks=(TaskSpec(name="t", python=python),), files=(CALLS,))
    assert len(check_job(spec)) == 1
