"""What a node refuses of a spec from elsewhere, where no file was read and nothing was normalised."""

from __future__ import annotations

import msgspec
import pytest

from meshpeer.core.ids import Digest
from meshpeer.core.jobs.check import check_job, require_valid
from meshpeer.core.jobs.model import Array, Element, FileRef, JobSpec, Need, TaskSpec
from meshpeer.core.jobs.problems import InvalidJob
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import BLOB_BYTES_MAX

GOOD = TaskSpec(name="t", argv=("true",))


def test_a_sound_spec_passes_and_survives_the_wire() -> None:
    spec = JobSpec(name="x", tasks=(GOOD, msgspec.structs.replace(GOOD, name="u", needs=(Need(task="t"),))))
    require_valid(spec)
    assert cbor.decode(cbor.encode(spec), JobSpec, bytes_max=10_000) == spec


@pytest.mark.parametrize(
    ("changes", "field", "what"),
    [
        ({"shell": "true"}, "tasks.t.run", "it has arguments and a shell line"),
        ({"argv": ()}, "tasks.t.run", "there is nothing to run"),
        ({"argv": ("a", "${x}")}, "tasks.t.run[1]", "nothing is called '${x}' here"),
        ({"cwd": "../x"}, "tasks.t.cwd", "'../x' climbs out of the folder"),
        ({"cwd": "a//b"}, "tasks.t.cwd", "'a//b' is not in normal form"),
        ({"outputs": ("./x",)}, "tasks.t.outputs[0]", "'./x' is not in normal form"),
        ({"retries": -1}, "tasks.t.retries", "-1 is out of range"),
        ({"timeout_ms": -1}, "tasks.t.timeout", "-1 is out of range"),
        ({"cpu": 0}, "tasks.t.resources.cpu", "0 is out of range"),
        ({"memory_bytes": -1}, "tasks.t.resources.memory", "-1 bytes are too few"),
        (
            {"memory_bytes": 2**51},
            "tasks.t.resources.memory",
            "2,251,799,813,685,248 bytes are more than any machine has",
        ),
        ({"processes": -1}, "tasks.t.limits.processes", "-1 is out of range"),
        ({"output_bytes": 1}, "tasks.t.limits.output", "1 bytes are too few"),
        ({"network": "vpn"}, "tasks.t.network", "'vpn' is no network"),
        ({"secrets": ("A", "A")}, "tasks.t.secrets[1]", "'A' is given twice"),
        ({"secrets": ("MESHPEER_X",)}, "tasks.t.secrets[0]", "'MESHPEER_X' is set by meshpeer itself"),
        ({"secrets": ("A" * 65,)}, "tasks.t.secrets[0]", f"'{'A' * 57}...' is no name of a secret"),
        ({"secrets": tuple(f"S{n}" for n in range(65))}, "tasks.t.secrets", "65 entries, and 64 are allowed"),
        ({"env": (("A", "1"), ("A", "2"))}, "tasks.t.env.A", "'A' is given twice"),
        ({"env": (("A=B", "1"),)}, "tasks.t.env.A=B", "'A=B' is no variable name"),
        ({"needs": (Need(task="gone"),)}, "tasks.t.needs[0]", "unknown task 'gone'"),
        ({"needs": (Need(task="u", into="/etc"),)}, "tasks.t.needs[0]", "'/etc' is absolute"),
        ({"array": Array(size=0)}, "tasks.t.array", "the array has no elements"),
        ({"array": Array(size=10**9)}, "tasks", "the job has 1,000,000,001 tasks, and 100,000 are allowed"),
        ({"array": Array(size=2, elements=(Element(),))}, "tasks.t.array", "1 elements in an array of 2"),
        (
            {"array": Array(size=2, elements=(Element(fields=(("a", "1"),)), Element()))},
            "tasks.t.array",
            "elements differ in their fields",
        ),
        (
            {"array": Array(size=1, elements=(Element(fields=(("a", "1"), ("a", "2"))),))},
            "tasks.t.array",
            "an element has the same field twice",
        ),
        (
            {"array": Array(size=1, elements=(Element(fields=(("PATH", "x"),)),))},
            "tasks.t.array.PATH",
            "'PATH' is no field name",
        ),
    ],
)
def test_a_malformed_task_is_refused(changes: dict[str, object], field: str, what: str) -> None:
    spec = JobSpec(
        name="x", tasks=(msgspec.structs.replace(GOOD, **changes), msgspec.structs.replace(GOOD, name="u"))
    )
    assert [(error.field, error.what) for error in check_job(spec)] == [(field, what)]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([("../x", 1, 32)], "'../x' climbs out of the folder"),
        ([("/etc/passwd", 1, 32)], "'/etc/passwd' is absolute"),
        ([("a/./b", 1, 32)], "'a/./b' is not in normal form"),
        ([("a", 1, 32), ("a", 1, 32)], "'a' is given twice"),
        ([("a", 1, 32), ("a/b", 1, 32)], "'a/b' is inside of what is a file as well"),
        ([("a", BLOB_BYTES_MAX + 1, 32)], "'a' has 1,099,511,627,777 bytes"),
        ([("a", 1, 5)], "'a' has no SHA-256 digest"),
    ],
)
def test_a_malformed_file_is_refused(files: list[tuple[str, int, int]], what: str) -> None:
    refs = tuple(FileRef(path=path, size=size, digest=Digest(bytes(digest))) for path, size, digest in files)
    errors = check_job(JobSpec(name="x", tasks=(GOOD,), files=refs))
    assert [error.what for error in errors] == [what]


def test_two_tasks_of_one_name_are_refused() -> None:
    assert [error.what for error in check_job(JobSpec(name="x", tasks=(GOOD, GOOD)))] == [
        "two tasks are called 't'"
    ]


def test_pairs_of_elements_are_bounded() -> None:
    wide = [TaskSpec(name=f"w{n}", argv=("x",), array=Array(size=1_000)) for n in range(99)]
    needs = tuple(
        Need(task=task.name, same_index=True, into=f"i{n}") for task in wide[:-1] for n in range(60)
    )
    wide[-1] = msgspec.structs.replace(wide[-1], needs=needs)
    assert [error.field for error in check_job(JobSpec(name="x", tasks=tuple(wide)))] == ["tasks"]


def test_a_refused_spec_raises_with_two_lines() -> None:
    with pytest.raises(InvalidJob) as caught:
        require_valid(JobSpec(name="x", tasks=()))
    assert caught.value.what == "x: tasks: the job has no tasks"
    assert caught.value.hint == "name at least one, with a run"
