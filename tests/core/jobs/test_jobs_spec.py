"""Rules of a job file, on documents built from plain values; positions are the adapters' tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.jobs.located import Entry, Located, Mapping, Place, Scalar, Sequence
from meshpeer.core.jobs.model import Array, Element, JobSpec, Need, TaskSpec
from meshpeer.core.jobs.problems import InvalidJob, SpecError, describe_errors
from meshpeer.core.jobs.spec import parse_job

FORMS = "write 0-23, a count, a list, or lists by field: {lens: [24mm, 50mm], seed: 1-10}"
RUN: dict[str, object] = {"run": ["true"]}


def test_every_field_of_a_job_is_read() -> None:
    assert spec_of(
        {
            "name": "flip book 2.0",
            "files": ["split.py", "./assets//"],
            "defaults": {
                "retries": 2,
                "timeout": "10m",
                "env": {"A": "1", "B": 1.5},
                "resources": {"cpu": 2},
            },
            "tasks": {
                "split": {"run": ["python3", "split.py", "${job}"], "outputs": ["scene/", "./a//b.txt"]},
                "render": {
                    "needs": ["split"],
                    "array": "0-23",
                    "run": "render $index",
                    "env": {"B": "own"},
                    "cwd": "work/",
                    "retries": 0,
                    "timeout": "500ms",
                    "resources": {"cpu": 1},
                    "outputs": ["frame-*.ppm"],
                },
                "film": {
                    "needs": ["render[index]", {"task": "split", "into": "in/"}],
                    "array": 24,
                    "run": ["film"],
                },
            },
        }
    ) == JobSpec(
        name="flip book 2.0",
        tasks=(
            TaskSpec(
                name="split",
                argv=("python3", "split.py", "${job}"),
                env=(("A", "1"), ("B", "1.5")),
                retries=2,
                timeout_ms=600_000,
                cpu=2,
                outputs=("scene/", "a/b.txt"),
            ),
            TaskSpec(
                name="render",
                shell="render $index",
                needs=(Need(task="split"),),
                array=Array(size=24),
                env=(("A", "1"), ("B", "own")),
                cwd="work",
                retries=0,
                timeout_ms=500,
                cpu=1,
                outputs=("frame-*.ppm",),
            ),
            TaskSpec(
                name="film",
                argv=("film",),
                needs=(Need(task="render", same_index=True), Need(task="split", into="in")),
                array=Array(size=24),
                env=(("A", "1"), ("B", "1.5")),
                retries=2,
                timeout_ms=600_000,
                cpu=2,
            ),
        ),
    )


def test_files_are_named_for_the_adapter_to_look_up() -> None:
    parsed = parse_job(located({"name": "x", "files": ["a.py", "./b//", "."], "tasks": {"t": RUN}}))
    assert [(file.path, file.folder, file.field) for file in parsed.files] == [
        ("a.py", False, ("files", 0)),
        ("b", True, ("files", 1)),
        ("", True, ("files", 2)),
    ]


@pytest.mark.parametrize(
    ("written", "array"),
    [
        (3, Array(size=3)),
        ("0-2", Array(size=3)),
        ("0-0", Array(size=1)),
    ],
)
def test_ranges_and_counts_have_no_fields(written: object, array: Array) -> None:
    assert spec_of(job(array=written)).tasks[0].array == array


@pytest.mark.parametrize(
    ("written", "rows"),
    [
        (["a", 1.5, 2], [{"value": "a"}, {"value": "1.5"}, {"value": "2"}]),
        ([{"x": 1, "y": "b"}, {"y": "c", "x": 2}], [{"x": "1", "y": "b"}, {"x": "2", "y": "c"}]),
        (
            {"lens": ["wide", "long"], "seed": "7-8"},
            [
                {"lens": "wide", "seed": "7"},
                {"lens": "wide", "seed": "8"},
                {"lens": "long", "seed": "7"},
                {"lens": "long", "seed": "8"},
            ],
        ),
    ],
)
def test_lists_and_products_have_named_fields(written: object, rows: list[dict[str, str]]) -> None:
    elements = tuple(Element(fields=tuple(row.items())) for row in rows)
    assert spec_of(job(array=written)).tasks[0].array == Array(size=len(rows), elements=elements)


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ("text", ["it is text, and must be a mapping (start with name: and tasks:)"]),
        (
            {},
            [
                "name: the job has no name (write name: at the top)",
                "tasks: the job has no tasks (name at least one under tasks:)",
            ],
        ),
        ({"name": "x", "tasks": {}}, ["tasks: the job has no tasks (name at least one, with a run)"]),
        (
            {"name": "x", "tasks": []},
            ["tasks: it is a list, and must be a mapping (write each task under its name)"],
        ),
        (
            {"name": "x", "tasks": {"t": {"run": "x", "array": 100_000}, "u": RUN}},
            [
                "tasks: the job has 100,001 tasks, and 100,000 are allowed "
                "(split it into several jobs, or let one task do more)"
            ],
        ),
        (
            {"name": "x", "task": {}, "tasks": {"t": RUN}},
            ["task: unknown field 'task' (did you mean 'tasks'?)"],
        ),
        (
            {"name": "x", "tasks": {"t": RUN}, "inputs": []},
            ["inputs: this version of meshpeer does not have 'inputs' yet (remove it)"],
        ),
        (
            {"name": "a/b", "tasks": {"t": RUN}},
            ["name: 'a/b' is no job name (up to 100 letters, digits, '_', '-', '.' and inner spaces)"],
        ),
        (
            {"name": 3, "tasks": {"-t": RUN}},
            [
                'name: 3 is a number here, and must be text (quote it: "3")',
                "tasks.-t: '-t' is no task name "
                "(up to 64 letters, digits, '_' and '-', a letter or digit first)",
            ],
        ),
        (
            {"name": "x", "tasks": {True: RUN, "t": RUN}},
            ['tasks.true: the key true is a truth value, not text (write "true")'],
        ),
    ],
)
def test_a_malformed_job_is_answered_by_field(document: object, errors: list[str]) -> None:
    assert errors_of(document) == errors


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"run": None}, ['.run: null is nothing here, and must be text (quote it: "null")']),
        ({"run": []}, [".run: there is nothing to run (write run: [program, argument])"]),
        ({"run": " "}, [".run: there is nothing to run (write run: [program, argument])"]),
        ({"run": [""]}, [".run[0]: the program's name is empty (name a program)"]),
        (
            {"run": ["a", 24, True]},
            [
                '.run[1]: 24 is a number here, and must be text (quote it: "24")',
                '.run[2]: true is a truth value here, and must be text (quote it: "true")',
            ],
        ),
        ({"run": ["a", "x\0"]}, [".run[1]: it contains a NUL character (no program can be given one)"]),
        (
            {"run": ["a", "\ud800"]},
            [".run[1]: it contains half of a character (a lone surrogate) (write the character itself)"],
        ),
        (
            {"run": ["a", "x" * 131_072]},
            [".run[1]: it has 131,072 bytes, and 131,071 are allowed (put it into a file of the job)"],
        ),
        ({"run": ["a", "${index}"]}, [".run[1]: '${index}' in a task without an array (give it an array)"]),
        ({"run": ["a", "${jbo}"]}, [".run[1]: nothing is called '${jbo}' here (did you mean 'job'?)"]),
        ({"run": ["a", "$${index} $HOME $"]}, []),
        ({"run": ["a", "${job"]}, [".run[1]: '${' has no '}' (close it, or write '$${' for the text)"]),
        ({"run": "${anything} ${the shell:-reads}"}, []),
        ({"array": ["a"], "run": ["a", "${value}", "${index}"]}, []),
        ({"array": "23"}, [f".array: '23' is no range ({FORMS})"]),
        ({"array": "5-2"}, [".array: the range 5-2 is empty (write 2-5)"]),
        (
            {"array": "1-24"},
            [
                ".array: the range 1-24 does not start at 0, and elements count from 0 "
                "(write 0-23, or name a field that counts otherwise: {number: 1-24})"
            ],
        ),
        ({"array": 0}, [".array: 0 is out of range (1 to 1,000,000,000)"]),
        ({"array": True}, [f".array: it is a truth value, and no array ({FORMS})"]),
        ({"array": []}, [".array: the array has no elements (give it one, or leave array out)"]),
        ({"array": {"a": []}}, [".array.a: the list is empty (give it a value)"]),
        (
            {"array": [{"a": 1}, {"b": 1}]},
            [
                ".array[1]: this element has the fields b, and the first has a "
                "(give all elements the same fields)"
            ],
        ),
        (
            {"array": {"a": "1-1000", "b": "1-1000"}},
            [
                ".array: the array has 1,000,000 elements, and a job has at most 100,000 tasks "
                "(split it into several jobs)"
            ],
        ),
        (
            {"array": {"Frame": ["a"]}},
            [".array.Frame: 'Frame' is no field name (lower-case letters, digits and '_', a letter first)"],
        ),
        (
            {"array": {"index": ["a"]}},
            [".array.index: 'index' is a field that every task has already (take another name)"],
        ),
        (
            {"env": {"MESHPEER_X": "1", "attempt": "2", "9A": "3"}},
            [
                ".env.9A: '9A' is no variable name (letters, digits and '_', no digit first)",
                ".env.MESHPEER_X: 'MESHPEER_X' is set by meshpeer itself (take another name)",
                ".env.attempt: 'attempt' is set by meshpeer itself (take another name)",
            ],
        ),
        (
            {"env": {"A": "${task}!", "B": "${HOME}", "C": True}},
            [
                ".env.A: variables are not expanded, and '${task}!' names '${task}' "
                "(the task has $task as a variable already)",
                '.env.C: true is a truth value here, and must be text (quote it: "true")',
            ],
        ),
        (
            {"array": {"lens": ["a"]}, "env": {"lens": "b"}},
            [".env.lens: 'lens' is a field of the task's array as well (rename the variable or the field)"],
        ),
        ({"cwd": "../up"}, [".cwd: '../up' climbs out of the folder (write it without '..')"]),
        ({"cwd": "a/../b"}, [".cwd: 'a/../b' climbs out of the folder (write it without '..')"]),
        (
            {"outputs": ["/tmp/x", "", "a\nb", ".", "f-${index}"]},
            [
                ".outputs[0]: '/tmp/x' is absolute (write it relative to the folder, without the first '/')",
                ".outputs[1]: it is empty (write a path, such as out/picture.png)",
                ".outputs[2]: 'a\\nb' contains a control character (rename the file)",
                ".outputs[3]: '.' is the whole scratch folder (name the files, or a folder in it)",
                ".outputs[4]: 'f-${index}': outputs are not expanded (match it with '*', as in frame-*.png)",
            ],
        ),
        ({"outputs": "a"}, [".outputs: it is text, and must be a list (write the paths in [ ])"]),
        ({"retries": 101}, [".retries: 101 is out of range (0 to 100)"]),
        ({"crash_limit": 0}, [".crash_limit: 0 is out of range (1 to 100)"]),
        ({"retries": True}, [".retries: it is a truth value, and must be a whole number (0 to 100)"]),
        ({"retries": "3"}, [".retries: it is text, and must be a whole number (write 3 without quotes)"]),
        ({"timeout": 90}, [".timeout: 90 has no unit (write 90s, or another of ms, s, m and h)"]),
        (
            {"timeout": "1.5h"},
            [".timeout: '1.5h' is no duration (write a number and ms, s, m or h, such as 90s or 10m)"],
        ),
        ({"timeout": "99999h"}, [".timeout: 99999h is more than a year (leave it out for no limit)"]),
        ({"timeout": "none"}, []),
        (
            {"resources": {"cpu": 0, "gpu": 1, "cpus": 1}},
            [
                ".resources.cpu: 0 is out of range (1 to 4,096)",
                ".resources.cpus: unknown resource 'cpus' (did you mean 'cpu'?)",
            ],
        ),
        (
            {"resources": {"cpu": 0.5}},
            [".resources.cpu: it is a fraction, and must be a whole number (1 to 4,096)"],
        ),
        (
            {"resources": {"memory": 512}},
            [".resources.memory: 512 has no unit (write 512MiB, or another of KiB and GiB)"],
        ),
        (
            {"resources": {"memory": "512MB"}},
            [".resources.memory: '512MB' is no size (write a number and KiB, MiB or GiB, such as 512MiB)"],
        ),
        (
            {"resources": {"memory": "1MiB"}},
            [".resources.memory: 1,048,576 bytes are too few (give it 16MiB or more)"],
        ),
        (
            {"limits": {"processes": 513, "output": "1B", "files": 3}},
            [
                ".limits.files: unknown field 'files' (known are output, processes)",
                ".limits.output: 1 bytes are too few (give it 4KiB or more)",
                ".limits.processes: 513 is out of range (1 to 512)",
            ],
        ),
        (
            {"network": "off"},
            [".network: 'off' is no network (write none, or host (the node's own, which is the default))"],
        ),
        ({"network": False}, [".network: false is no network (write none, or host)"]),
        ({"secrets": "A"}, [".secrets: it is text, and must be a list (write the names in [ ])"]),
        (
            {"secrets": ["A", "A", "B C", "task", "D"], "env": {"D": "x"}},
            [
                ".secrets[1]: 'A' is given twice (remove one)",
                ".secrets[2]: 'B C' is no variable name (letters, digits and '_', no digit first)",
                ".secrets[3]: 'task' is set by meshpeer itself (take another name)",
                ".secrets[4]: 'D' is a variable or field of the task as well "
                "(a secret becomes a variable of its name: rename one)",
            ],
        ),
        ({"needs": "u"}, [".needs: it is text, and must be a list (write [u])"]),
        ({"needs": ["v"]}, [".needs[0]: unknown task 'v' (name a task of this job)"]),
        ({"needs": ["user"]}, [".needs[0]: unknown task 'user' (name a task of this job)"]),
        ({"needs": ["t"]}, [".needs[0]: 't' needs itself (remove it)"]),
        (
            {"needs": ["u", "u", {"task": "u", "into": "x"}]},
            [
                ".needs[1]: 'u' is needed twice, into the same folder "
                "(remove one, or stage it with {task: ..., into: ...})"
            ],
        ),
        (
            {"needs": ["u[3]"]},
            [
                ".needs[0]: 'u[3]' names one element "
                "(write u for all of it, or u[index] for the element of the same index)"
            ],
        ),
        ({"needs": [{"into": "x"}]}, [".needs[0]: it names no task (write {task: name, into: folder})"]),
        (
            {"needs": [{"task": "u", "into": "../x"}]},
            [".needs[0].into: '../x' climbs out of the folder (write it without '..')"],
        ),
        ({"needs": ["u[index]"]}, [".needs[0]: 'u[index]', but 'u' has no array (write u)"]),
        (
            {"needs": ["many[index]"]},
            [
                ".needs[0]: 'many[index]', but 't' has no array of its own "
                "(write many for all of it, or give this task an array)"
            ],
        ),
        (
            {"needs": ["many[index]"], "array": 4},
            [
                ".needs[0]: 'many[index]' pairs elements, but 'many' has 3 of them and 't' 4 "
                "(make the arrays equal, or write many for all of it)"
            ],
        ),
        (
            {"keep": True},
            [".keep: this version of meshpeer does not have 'keep' yet (remove it)"],
        ),
        ({"nedds": ["u"]}, [".nedds: unknown field 'nedds' (did you mean 'needs'?)"]),
    ],
)
def test_a_malformed_task_is_answered_by_field(fields: dict[str, object], errors: list[str]) -> None:
    tasks = {"t": {**RUN, **fields}, "u": RUN, "many": {"run": "true", "array": 3}}
    assert errors_of({"name": "x", "tasks": tasks}) == [f"tasks.t{error}" for error in errors]


def test_a_task_that_only_a_later_version_can_run_is_answered_once() -> None:
    assert errors_of({"name": "x", "tasks": {"t": {"keep": True}}}) == [
        "tasks.t.keep: this version of meshpeer does not have 'keep' yet (remove it)"
    ]


def test_a_rejected_array_causes_no_further_errors() -> None:
    tasks = {
        "t": {"array": "1-3", "run": ["a", "${index}", "${value}"]},
        "u": {"array": 3, "run": "x", "needs": ["t[index]"]},
    }
    assert [error.field for error in parse_job(located({"name": "x", "tasks": tasks})).errors] == [
        "tasks.t.array"
    ]


def test_a_cycle_is_printed_as_a_walk() -> None:
    tasks = {
        "start": RUN,
        "a": {**RUN, "needs": ["start", "c"]},
        "b": {**RUN, "needs": ["a"]},
        "c": {**RUN, "needs": ["b"]},
        "d": {**RUN, "needs": ["e"]},
        "e": {**RUN, "needs": ["d", "a"]},
    }
    assert errors_of({"name": "x", "tasks": tasks}) == [
        "tasks.a.needs: the tasks need each other in a cycle: a -> c -> b -> a (remove one of these needs)",
        "tasks.d.needs: the tasks need each other in a cycle: d -> e -> d (remove one of these needs)",
    ]


def test_a_chain_as_long_as_a_job_may_be_is_walked() -> None:
    tasks: dict[object, object] = {f"t{n}": {**RUN, "needs": [f"t{n + 1}"]} for n in range(20_000)}
    tasks["t20000"] = {**RUN, "needs": ["t0"]}
    errors = errors_of({"name": "x", "tasks": tasks})
    assert len(errors) == 1
    assert "t0 -> t1 -> t2" in errors[0]


def test_errors_come_by_line_and_name_the_nearest_place() -> None:
    document = Mapping(
        place=Place(1, 1),
        entries=(
            entry(
                "tasks",
                Place(4, 1),
                Mapping(entries=(entry("t", Place(5, 3), located({})),), place=Place(5, 6)),
            ),
            entry("name", Place(2, 1), Scalar(value=7, written="7", place=Place(2, 7))),
        ),
    )
    assert describe_errors(parse_job(document).errors, "x.yaml") == [
        'x.yaml:2:7: name: 7 is a number here, and must be text (quote it: "7")',
        "x.yaml:5:3: tasks.t.run: there is nothing to run (write run: [program, argument])",
    ]


def test_a_key_given_twice_is_answered_with_both_lines() -> None:
    task = located(RUN)
    tasks = Mapping(entries=(entry("t", Place(3, 1), task), entry("t", Place(9, 1), task)))
    document = Mapping(entries=(entry("name", Place(1, 1), located("x")), entry("tasks", Place(2, 1), tasks)))
    assert describe_errors(parse_job(document).errors, "x.yaml") == [
        "x.yaml:9:1: tasks.t: 't' is given twice, first at line 3 (remove one)"
    ]


def test_two_lines_stand_for_all_errors() -> None:
    errors = [
        SpecError(path=("name",), what="bad", hint="mend it", place=Place(2, 7)),
        SpecError(path=(), what="b"),
    ]
    invalid = InvalidJob(errors, "x.yaml")
    assert (invalid.what, invalid.hint) == ("x.yaml:2:7: name: bad (and 1 more)", "mend it")
    assert invalid.exit_code == 2


def test_printed_errors_are_bounded() -> None:
    errors = [SpecError(path=("tasks", f"t{n}"), what="bad") for n in range(80)]
    lines = describe_errors(errors, "x.yaml")
    assert len(lines) == 51
    assert lines[-1] == "x.yaml: and 30 more errors"


def test_control_characters_of_a_name_never_reach_a_terminal() -> None:
    assert errors_of({"name": "x", "tasks": {"a\x1b[2J": RUN}})[0].startswith(
        "tasks.'a\\x1b[2J': 'a\\x1b[2J' is no"
    )


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["t", "u[index]", "0-3", "10m", "${index}", "a/b", "run", "needs"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "files", "defaults", "tasks", "run", "needs", "array", "env", "t", "task", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(tree=trees, tasks=trees)
def test_no_document_makes_the_parser_crash(tree: object, tasks: object) -> None:
    for document in (
        tree,
        {"name": "x", "tasks": {"t": tasks}},
        {"name": "x", "tasks": tasks, "files": tree},
    ):
        parsed = parse_job(located(document))
        assert (parsed.spec is None) == bool(parsed.errors)


def spec_of(document: object) -> JobSpec:
    parsed = parse_job(located(document))
    assert parsed.spec is not None, describe_errors(parsed.errors, "job")
    return parsed.spec


def errors_of(document: object) -> list[str]:
    return [
        line.removeprefix("job:").lstrip()
        for line in describe_errors(parse_job(located(document)).errors, "job")
    ]


def job(**fields: object) -> dict[str, object]:
    return {"name": "x", "tasks": {"t": {**RUN, **fields}}}


def located(value: object) -> Located:
    """The document of plain values, without places."""
    if isinstance(value, dict):
        return Mapping(
            entries=tuple(Entry(key=scalar(key), value=located(item)) for key, item in value.items())
        )
    if isinstance(value, list):
        return Sequence(items=tuple(located(item) for item in value))
    return scalar(value)


def scalar(value: object) -> Scalar:
    assert value is None or isinstance(value, str | int | float | bool)
    written = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return Scalar(value=value, written=written)


def entry(key: str, place: Place, value: Located) -> Entry:
    return Entry(key=Scalar(value=key, written=key, place=place), value=value)


def test_what_confines_a_task_is_read_and_defaults_give_way() -> None:
    document = {
        "name": "x",
        "defaults": {
            "resources": {"memory": "1GiB"},
            "limits": {"processes": 64, "output": "2GiB"},
            "network": "none",
            "secrets": ["TOKEN"],
        },
        "tasks": {
            "a": {"run": "x"},
            "b": {
                "run": "x",
                "resources": {"memory": "none"},
                "limits": {"output": "512KiB"},
                "network": "host",
                "secrets": [],
            },
        },
    }
    first, second = spec_of(document).tasks
    assert (first.memory_bytes, first.processes, first.output_bytes) == (2**30, 64, 2**31)
    assert (first.network, first.secrets) == ("none", ("TOKEN",))
    assert (second.memory_bytes, second.processes, second.output_bytes) == (0, 64, 2**19)
    assert (second.network, second.secrets) == ("host", ())
