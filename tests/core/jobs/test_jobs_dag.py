from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import InvariantBroken, LocalFault
from meshpeer.core.ids import TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.jobs.progress import Progress


def test_tasks_stand_in_file_order_and_elements_in_order() -> None:
    graph = Graph.of(flipbook())
    assert [graph.id_of(task) for task in tasks(graph)] == [
        "split", "render[0]", "render[1]", "render[2]", "grade[0]", "grade[1]", "grade[2]", "film",
    ]  # fmt: skip
    assert [graph.element_of(task) for task in tasks(graph)] == [None, 0, 1, 2, 0, 1, 2, None]
    assert graph.tasks_named("grade") == range(4, 7)
    assert graph.spec_of(TaskIndex(5)).name == "grade"


def test_direct_needs_come_in_the_order_of_the_file() -> None:
    graph = Graph.of(flipbook())
    assert needs(graph, "split") == []
    assert needs(graph, "render[2]") == ["split"]
    assert needs(graph, "grade[1]") == ["render[1]", "split"]
    assert needs(graph, "film") == ["grade[0]", "grade[1]", "grade[2]"]


def test_only_what_nobody_needs_is_a_sink() -> None:
    graph = Graph.of(flipbook())
    assert [graph.id_of(task) for task in tasks(graph) if graph.is_sink(task)] == ["film"]


def test_every_id_finds_its_task() -> None:
    graph = Graph.of(flipbook())
    assert [graph.find(graph.id_of(task)) for task in tasks(graph)] == list(range(8))


@pytest.mark.parametrize(
    ("text_id", "what", "hint"),
    [
        ("rendr[1]", "the job has no task 'rendr[1]'", "near tasks: render"),
        ("zzz", "the job has no task 'zzz'", "its tasks: split, render, grade, film"),
        ("", "the job has no task ''", "its tasks: split, render, grade, film"),
        ("render[3]", "the job has no task 'render[3]'", "render is an array: render[0] to render[2]"),
        ("render[01]", "the job has no task 'render[01]'", "render is an array: render[0] to render[2]"),
        ("render", "'render' names 3 tasks, not one", "render is an array: render[0] to render[2]"),
        ("split[0]", "the job has no task 'split[0]'", "split is one task, not an array"),
    ],
)
def test_an_id_that_names_no_task_is_answered_with_near_ones(text_id: str, what: str, hint: str) -> None:
    with pytest.raises(LocalFault) as caught:
        Graph.of(flipbook()).find(text_id)
    assert (caught.value.what, caught.value.hint) == (what, hint)


def test_a_name_that_names_no_task_is_answered_with_near_ones() -> None:
    with pytest.raises(LocalFault) as caught:
        Graph.of(flipbook()).tasks_named("flim")
    assert (caught.value.what, caught.value.hint) == ("the job has no task 'flim'", "near tasks: film")


def test_tasks_become_ready_as_their_needs_succeed() -> None:
    graph = Graph.of(flipbook())
    progress = Progress(graph)
    assert ids(graph, progress.take_ready()) == ["split"]
    assert progress.take_ready() == ()
    progress.succeeded(graph.find("split"))
    assert ids(graph, progress.take_ready()) == ["render[0]", "render[1]", "render[2]"]
    progress.succeeded(graph.find("render[2]"))
    progress.succeeded(graph.find("render[0]"))
    assert ids(graph, progress.take_ready()) == ["grade[0]", "grade[2]"]
    for name in ("render[1]", "grade[0]", "grade[1]"):
        progress.succeeded(graph.find(name))
    assert progress.take_ready() == ()
    progress.succeeded(graph.find("grade[2]"))
    assert ids(graph, progress.take_ready()) == ["film"]


def test_a_failure_skips_all_that_depends_on_it() -> None:
    graph = Graph.of(flipbook())
    progress = Progress(graph)
    progress.succeeded(graph.find("split"))
    assert ids(graph, progress.failed(graph.find("render[1]"))) == ["grade[1]", "film"]
    assert progress.failed(graph.find("render[1]")) == ()
    assert progress.failed(graph.find("film")) == ()
    assert ids(graph, progress.take_ready()) == ["render[0]", "render[2]"]
    assert ids(graph, progress.failed(graph.find("render[0]"))) == ["grade[0]"]


def test_what_needs_a_failure_is_skipped_by_a_success() -> None:
    spec = JobSpec(
        name="conditions",
        tasks=(
            TaskSpec(name="probe", argv=("x",), array=Array(size=2)),
            TaskSpec(name="alarm", argv=("x",), needs=(Need(task="probe", when="failed"),)),
            TaskSpec(
                name="mend",
                argv=("x",),
                array=Array(size=2),
                needs=(Need(task="probe", same_index=True, when="failed"),),
            ),
            TaskSpec(name="clean", argv=("x",), needs=(Need(task="alarm", when="ended"),)),
        ),
    )
    graph = Graph.of(spec)
    progress = Progress(graph)
    progress.take_ready()
    assert ids(graph, progress.succeeded(graph.find("probe[0]"))) == ["mend[0]"]
    assert ids(graph, progress.failed(graph.find("probe[1]"))) == []
    assert ids(graph, progress.take_ready()) == ["alarm", "mend[1]"]
    progress = Progress(graph)
    progress.succeeded(graph.find("probe[0]"))
    assert ids(graph, progress.succeeded(graph.find("probe[1]"))) == ["alarm", "mend[1]"]
    assert ids(graph, progress.take_ready()) == ["clean"]


def test_a_need_of_an_exit_code_is_met_by_that_code_alone() -> None:
    spec = JobSpec(
        name="codes",
        tasks=(
            TaskSpec(name="probe", argv=("x",), array=Array(size=2)),
            TaskSpec(name="full", argv=("x",), needs=(Need(task="probe", when="exit", exits=(3,)),)),
            TaskSpec(
                name="each",
                argv=("x",),
                array=Array(size=2),
                needs=(Need(task="probe", same_index=True, when="exit", exits=(0, 4)),),
            ),
            TaskSpec(name="clean", argv=("x",), needs=(Need(task="full", when="ended"),)),
        ),
    )
    graph = Graph.of(spec)
    progress = Progress(graph)
    progress.take_ready()
    assert ids(graph, progress.failed(graph.find("probe[0]"), 3)) == ["each[0]"]
    assert ids(graph, progress.take_ready()) == []
    assert ids(graph, progress.failed(graph.find("probe[1]"), 3)) == ["each[1]"]
    assert ids(graph, progress.take_ready()) == ["full"]
    progress = Progress(graph)
    progress.take_ready()
    assert ids(graph, progress.succeeded(graph.find("probe[0]"))) == ["full"]
    assert ids(graph, progress.take_ready()) == ["each[0]", "clean"]
    # A failure without a process, as of a task that was given up, has no exit code.
    assert ids(graph, progress.failed(graph.find("probe[1]"))) == ["each[1]"]


def test_a_contradictory_end_is_a_bug() -> None:
    graph = Graph.of(flipbook())
    progress = Progress(graph)
    progress.succeeded(graph.find("split"))
    with pytest.raises(InvariantBroken, match="split failed, but had already succeeded"):
        progress.failed(graph.find("split"))
    progress.failed(graph.find("render[0]"))
    with pytest.raises(InvariantBroken, match=r"grade\[0\] succeeded, but had already skipped"):
        progress.succeeded(graph.find("grade[0]"))


@pytest.mark.parametrize("task", [-1, 8])
def test_a_position_outside_the_graph_is_refused(task: int) -> None:
    progress = Progress(Graph.of(flipbook()))
    with pytest.raises(IndexError):
        progress.succeeded(TaskIndex(task))
    with pytest.raises(IndexError):
        progress.failed(TaskIndex(task))


def test_a_hundred_thousand_tasks_cost_counters_not_edges() -> None:
    wide = Array(size=49_999)
    graph = Graph.of(
        JobSpec(
            name="wide",
            tasks=(
                TaskSpec(name="first", argv=("true",), array=wide),
                TaskSpec(name="gate", argv=("true",), needs=(Need(task="first"),)),
                TaskSpec(
                    name="second", argv=("true",), array=wide, needs=(Need(task="first"), Need(task="gate"))
                ),
                TaskSpec(name="last", argv=("true",), needs=(Need(task="second"),)),
            ),
        )
    )
    progress = Progress(graph)
    seen = 0
    while ready := progress.take_ready():
        seen += len(ready)
        for task in ready:
            progress.succeeded(task)
    assert seen == len(graph) == 100_000


@st.composite
def specs(draw: st.DrawFn, ends: tuple[str, ...] = ("succeeded",)) -> JobSpec:
    shapes = draw(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=6))
    made: list[TaskSpec] = []
    for position, size in enumerate(shapes):
        wanted = draw(st.sets(st.integers(0, position - 1))) if position else set()
        made.append(
            TaskSpec(
                name=f"t{position}",
                argv=("true",),
                array=None if size is None else Array(size=size),
                needs=tuple(
                    Need(
                        task=f"t{other}",
                        same_index=size is not None and shapes[other] == size and draw(st.booleans()),
                        when=(when := draw(st.sampled_from(ends))),
                        exits=draw(st.sampled_from([(0,), (3,), (0, 3)])) if when == "exit" else (),
                    )
                    for other in sorted(wanted)
                ),
            )
        )
    return JobSpec(name="any", tasks=tuple(draw(st.permutations(made))))


@settings(max_examples=80, deadline=None)
@given(spec=specs(ends=("succeeded", "failed", "ended", "exit")), data=st.data())
def test_progress_agrees_with_the_definition(spec: JobSpec, data: st.DataObject) -> None:
    graph = Graph.of(spec)
    progress = Progress(graph)
    ends: dict[TaskIndex, str] = {}
    handed_out: set[TaskIndex] = set()
    while True:
        expected = {task for task in tasks(graph) if task not in ends and all(needs_met(graph, task, ends))}
        assert progress.take_ready() == tuple(sorted(expected - handed_out))
        handed_out |= expected
        running = sorted(handed_out - ends.keys())
        if not running:
            break
        for task in data.draw(st.lists(st.sampled_from(running), unique=True, min_size=1)):
            ends[task] = data.draw(
                st.sampled_from(["succeeded", "succeeded", "failed", "failed 3", "failed 4"])
            )
            lost = naively_lost(graph, ends)
            news = progress.succeeded if ends[task] == "succeeded" else progress.failed
            assert news(task, CODES.get(ends[task])) == tuple(sorted(lost))
            assert news(task) == ()
            ends.update(dict.fromkeys(lost, "skipped"))
    assert ends.keys() == set(tasks(graph))


@settings(max_examples=40, deadline=None)
@given(spec=specs(ends=("succeeded", "failed", "ended", "exit")), data=st.data())
def test_ends_replayed_in_any_order_leave_the_same_tasks_ready(spec: JobSpec, data: st.DataObject) -> None:
    graph = Graph.of(spec)
    progress = Progress(graph)
    ends: dict[TaskIndex, str] = {}
    ready = list(progress.take_ready())
    while ready and data.draw(st.integers(0, 9)):
        task = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        ends[task] = data.draw(st.sampled_from(["succeeded", "failed", "failed 3"]))
        (progress.succeeded if ends[task] == "succeeded" else progress.failed)(task, CODES.get(ends[task]))
        ready.extend(progress.take_ready())
    replayed = Progress(graph)
    for task in data.draw(st.permutations(sorted(ends))):
        (replayed.succeeded if ends[task] == "succeeded" else replayed.failed)(task, CODES.get(ends[task]))
    assert replayed.take_ready() == tuple(sorted(ready))
    at_once = Progress(graph)
    at_once.replay(
        [task for task, end in ends.items() if end == "succeeded"],
        [task for task, end in ends.items() if end != "succeeded"],
        {task: CODES.get(end) for task, end in ends.items()},
    )
    assert at_once.take_ready() == tuple(sorted(ready))


@settings(max_examples=40, deadline=None)
@given(spec=specs(), data=st.data())
def test_successes_replayed_in_any_order_leave_the_same_tasks_ready(
    spec: JobSpec, data: st.DataObject
) -> None:
    graph = Graph.of(spec)
    edges = {task: {need for need, _ in graph.needs_of(task)} for task in tasks(graph)}
    done: set[TaskIndex] = set()
    for _ in range(data.draw(st.integers(0, len(graph)))):
        able = sorted(task for task in edges if task not in done and edges[task] <= done)
        done.add(data.draw(st.sampled_from(able)))
    replayed = Progress(graph)
    for task in data.draw(st.permutations(sorted(done))):
        replayed.succeeded(task)
    assert replayed.take_ready() == tuple(t for t in tasks(graph) if t not in done and edges[t] <= done)


CODES = {"succeeded": 0, "failed 3": 3, "failed 4": 4}
"""Of ends as they are told here; "failed" alone and "skipped" have none."""


def flipbook() -> JobSpec:
    return JobSpec(
        name="flipbook",
        tasks=(
            TaskSpec(name="split", argv=("split",)),
            TaskSpec(name="render", argv=("render",), array=Array(size=3), needs=(Need(task="split"),)),
            TaskSpec(
                name="grade",
                argv=("grade",),
                array=Array(size=3),
                needs=(Need(task="render", same_index=True), Need(task="split", into="scene")),
            ),
            TaskSpec(name="film", argv=("film",), needs=(Need(task="grade"),)),
        ),
    )


def tasks(graph: Graph) -> list[TaskIndex]:
    return [TaskIndex(task) for task in range(len(graph))]


def ids(graph: Graph, found: tuple[TaskIndex, ...]) -> list[str]:
    return [graph.id_of(task) for task in found]


def needs(graph: Graph, text_id: str) -> list[str]:
    return [graph.id_of(task) for task, _ in graph.needs_of(graph.find(text_id))]


def needs_met(graph: Graph, task: TaskIndex, ends: dict[TaskIndex, str]) -> list[bool | None]:
    """Of each need of a task, by the definition: met, never to be met, or open."""
    needed: dict[int, tuple[Need, list[str]]] = {}
    for one, need in graph.needs_of(task):
        needed.setdefault(id(need), (need, []))[1].append(ends.get(one, ""))
    return [verdict(need, each) for need, each in needed.values()]


def verdict(need: Need, ends: list[str]) -> bool | None:
    if need.when == "succeeded" and set(ends) - {"succeeded", ""}:
        return False
    if need.when == "exit" and any(CODES.get(end) not in need.exits for end in ends if end):
        return False
    if "" in ends:
        return None
    return need.when != "failed" or any(end.startswith("failed") for end in ends)


def naively_lost(graph: Graph, ends: dict[TaskIndex, str]) -> set[TaskIndex]:
    """The tasks without an end that have a need which can't be met, now or once others are skipped."""
    lost: set[TaskIndex] = set()
    while True:
        so_far = {**ends, **dict.fromkeys(lost, "skipped")}
        more = {one for one in tasks(graph) if one not in so_far and False in needs_met(graph, one, so_far)}
        if not more:
            return lost
        lost |= more
