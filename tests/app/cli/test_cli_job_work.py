"""Having a say in jobs and nodes at work, and knowing why: on the command line."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_peer, make_task

from meshpeer.app.cli import job_words, progress, show
from meshpeer.app.cli.graph_svg import draw_svg
from meshpeer.app.cli.graph_text import ASCII, draw_text
from meshpeer.app.cli.job_file import graph_of
from meshpeer.app.cli.job_logs import last_lines
from meshpeer.app.cli.progress import Pace, words
from meshpeer.core.jobs.model import Array, JobSpec, Need, TaskSpec
from meshpeer.core.scheduler import explaining
from meshpeer.runtime.control import LogPiece
from meshpeer.runtime.job_docs import Drain, GraphTask, JobGraph, JobWhy, WhyTasks

FILM = "name: film\ntasks: {split: {run: ['true']}, render: {needs: [split], array: 0-2, run: ['true']}}\n"


@pytest.fixture
def job(agent: FakeApi, call: Call, home: Path) -> str:
    Path("film.yaml").write_text(FILM)
    call("jobs", "submit", "film.yaml", "--quiet")
    agent.asked.clear()
    return agent.submissions[-1]


# --- pause, priority, retry -------------------------------------------------------------------------------


def test_orders_are_passed_on_and_what_follows_is_said(agent: FakeApi, call: Call, job: str) -> None:
    assert call("jobs", "pause", "film").out.splitlines() == [
        f"{job} (film) is paused; 4 tasks still run",
        f"  let it go on with: meshpeer jobs resume {job}",
    ]
    assert call("jobs", "resume", "film").out == f"{job} (film) goes on\n"
    assert call("jobs", "priority", "film", "7").out == f"{job} (film) has priority 7\n"
    assert call("jobs", "priority", "film", "--", "-7").out == f"{job} (film) has priority -7\n"
    assert call("jobs", "retry", "film", "render[1]", "split").out.startswith(f"{job} (film) goes on with 4")
    assert call("jobs", "adopt", "film", "--force").out.startswith(f"{job} (film) is this node's job now")
    assert agent.asked == [
        ("pause", "film", True),
        ("pause", "film", False),
        ("prioritise", "film", 7),
        ("prioritise", "film", -7),
        ("retry", "film", ("render[1]", "split")),
        ("adopt", "film", True),
    ]


@pytest.mark.parametrize("order", [("pause",), ("resume",), ("priority", "5"), ("retry",), ("adopt",)])
def test_orders_answer_with_a_job_document(
    agent: FakeApi, call: Call, job: str, order: tuple[str, ...]
) -> None:
    document = call("jobs", order[0], "film", *order[1:], "--json").json()
    assert isinstance(document, dict)
    assert document["id"] == job


def test_priority_that_is_no_number_is_wrong_usage(agent: FakeApi, call: Call, job: str) -> None:
    assert call("jobs", "priority", "film", "high").code == 2


# --- looking ----------------------------------------------------------------------------------------------


def test_list_says_whose_jobs_are_missing(agent: FakeApi, call: Call, job: str) -> None:
    agent.silent = ("delta", "echo")
    ran = call("jobs", "list")
    assert ran.out.splitlines()[0].split()[:5] == ["ID", "NAME", "STATE", "TASKS", "OWNER"]
    assert job in ran.out
    assert ran.err == "not asked, or without an answer: delta, echo; jobs of theirs are not listed\n"
    assert call("jobs", "list", "--here").err == ""


def test_why_groups_and_says_what_to_do(agent: FakeApi, call: Call, job: str) -> None:
    agent.reasons = why(
        WhyTasks(
            state="ready", code="busy", text="every slot is taken", count=20, tasks=("r[0]", "r[1]", "r[2]")
        ),
        WhyTasks(state="running", code="running", text="runs on beta", count=2, tasks=("r[7]", "r[8]")),
        WhyTasks(
            state="failed", code="failed", text="failed on beta: exit code 3", count=1, tasks=("split",)
        ),
    )
    assert call("jobs", "why", "film").out.splitlines() == [
        "j (film): running",
        "  20 tasks (r[0], r[1], ...) waiting: every slot is taken",
        "  r[7] and r[8] run on beta",
        "  split failed on beta: exit code 3",
        "  see who takes work with: meshpeer peers",
        "  see what it printed with: meshpeer jobs logs j split",
        "  run what failed again with: meshpeer jobs retry j",
    ]


def test_why_of_a_task_is_one_sentence(agent: FakeApi, call: Call, job: str) -> None:
    agent.reasons = why(
        WhyTasks(state="waiting", code="needs", text="waits for split (ready)", count=1, tasks=("r[0]",))
    )
    assert call("jobs", "why", "film", "r[0]", "--quiet").out == "r[0] waits for split (ready)\n"
    assert agent.asked[-1] == ("why_task", "film", "r[0]")


def test_every_reason_with_a_subject_of_its_own_is_introduced() -> None:
    assert job_words.HINDRANCES == explaining.HINDRANCES


# --- drain ------------------------------------------------------------------------------------------------


def test_drain_waits_until_nothing_is_left(
    agent: FakeApi, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshpeer.app.cli.drain.LOOK_S", 0.0)
    agent.drains = [drained(2, 1, 0), drained(1, 0, 0), drained(0, 0, 3), drained(0, 0, 0)]
    ran = call("drain", "beta", "--wait")
    assert ran.out.splitlines() == [
        "beta is drained: it has nothing left",
        "  let it work again with: meshpeer undrain beta",
    ]
    assert ran.err.splitlines() == [
        "beta is drained, and has 2 tasks running, 1 task waiting",
        "beta is drained, and has 1 task running",
        "beta is drained, and has 3 results to bring home",
    ]


def test_drain_says_what_is_left_and_undrain_that_it_works(agent: FakeApi, call: Call) -> None:
    agent.drains = [drained(1, 0, 0)]
    assert call("drain").out.splitlines()[0] == "beta is drained: it still has 1 task running"
    assert call("undrain", "beta").out == "beta takes work\n"
    assert agent.asked == [("drain", "", True), ("drain", "beta", False)]


def test_peers_tell_who_is_drained_where_somebody_is(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(work="accepts")]
    assert "WORK" not in call("peers").out
    agent.members = [make_peer(work="drained"), make_peer(name="gamma", work="accepts")]
    assert [line.split()[-1] for line in call("peers").out.splitlines()] == ["WORK", "drained", "accepts"]


# --- logs -------------------------------------------------------------------------------------------------


def test_follower_is_told_when_another_attempt_begins(agent: FakeApi, call: Call, job: str) -> None:
    agent.attempts = [
        LogPiece(data=b"one\n", offset=4, finished=False, attempt=1, node="beta"),
        LogPiece(data=b"uno\n", offset=4, finished=False, attempt=2, node="gamma"),
        LogPiece(data=b"", offset=4, finished=True, attempt=2, node="gamma"),
    ]
    ran = call("jobs", "logs", "film", "split", "--follow", "--stream", "stdout")
    assert (ran.out, ran.err) == ("one\nuno\n", "==> another attempt, on gamma <==\n")


def test_tail_prints_the_last_lines(agent: FakeApi, call: Call, home: Path) -> None:
    agent.printed = {("split", "stdout"): b"".join(b"line %d\n" % one for one in range(50))}
    Path("film.yaml").write_text(FILM)
    call("jobs", "submit", "film.yaml")
    tailed = call("jobs", "logs", "film", "split", "--tail", "2", "--stream", "stdout")
    assert tailed.out == "line 48\nline 49\n"
    assert call("jobs", "logs", "film", "split", "--tail", "0").out == ""
    assert call("jobs", "logs", "film", "split", "--tail", "-1").code == 2


@pytest.mark.parametrize(
    ("data", "count", "last"),
    [(b"", 3, b""), (b"a\nb", 1, b"b"), (b"a\nb\n", 1, b"b\n"), (b"a\nb\n", 9, b"a\nb\n"), (b"a\n", 0, b"")],
)
def test_last_lines_are_whole(data: bytes, count: int, last: bytes) -> None:
    assert last_lines(data, count) == last


def test_failed_job_ends_with_the_last_words_of_what_failed(agent: FakeApi, call: Call, job: str) -> None:
    agent.job_state = "failed"
    agent.printed = {("render[0]", "stderr"): b"\x1b[31mlong ago\n" + b"x\n" * 9 + b"ValueError: no\tframe\n"}
    size = len(agent.printed["render[0]", "stderr"])
    for number in (1, 2):
        agent.tasks_of[job][number] = make_task(
            id=f"render[{number - 1}]",
            name="render",
            state="failed",
            exit_code=3,
            error="exit code 3",
            stderr_bytes=size,
        )
    ran = call("jobs", "watch", job)
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert "render[0], render[1] failed on beta: exit code 3" in lines
    assert lines[-4] == "  | ValueError: no  frame"
    assert lines[-3] == f"run what failed again with: meshpeer jobs retry {job}"
    assert "\x1b" not in ran.err


# --- progress ---------------------------------------------------------------------------------------------


def test_rate_is_that_of_the_last_while() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.rate() is None
    for second in range(100):
        now[0] = float(second)
        pace.note(second * 2 if second > 50 else 0)
    assert pace.rate() == pytest.approx(2.0, rel=0.1)


def test_no_rate_is_guessed_from_too_little() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.note(0)
    now[0] = 10.0
    pace.note(2)
    assert pace.rate() is None
    pace.note(progress.ENDED_MIN)
    assert pace.rate() is not None


def test_progress_tells_counts_rate_and_what_is_left(agent: FakeApi, call: Call, job: str) -> None:
    found = agent._job(job, "running")
    assert words(found, 0.5) == "0 of 4 done, 4 running, 30 tasks/min, 8.0 s left: beta 4"
    assert words(found, nodes=False) == "0 of 4 done, 4 running"


def test_live_bar_fits_eighty_columns(
    agent: FakeApi, call: Call, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(show, "is_rich", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    running = agent._job(job, "running")
    progress.follow(iter([running, agent._job(job, "succeeded")]), quiet=False)
    frames = screen.getvalue().split("\r")
    assert all(show.width_of(one.removesuffix("\x1b[K")) < 80 for one in frames)
    assert frames[-1] == "\x1b[K", "the bar is gone in the end"
    assert any("█" * progress.BAR_COLUMNS in one for one in frames)


# --- graph ------------------------------------------------------------------------------------------------


def graph(*tasks: GraphTask, state: str = "") -> JobGraph:
    return JobGraph(job="", name="film", state=state, tasks=tasks)


def task(name: str, *needs: str, count: int = 0, **states: int) -> GraphTask:
    return GraphTask(name=name, count=count or 1, array=bool(count), needs=needs, states=states)


PIPELINE = graph(
    task("fetch", count=8, succeeded=8),
    task("clean", "fetch", count=8, succeeded=3, running=2, ready=3),
    task("index", "fetch", running=1),
    task("report", "clean", "index", waiting=1),
    task("other", failed=1),
    state="running",
)


def test_graph_is_drawn_in_lanes() -> None:
    drawn = ["".join(text for text, _ in row).rstrip() for row in draw_text(PIPELINE, columns=80)]
    assert drawn == [
        "film: 19 tasks, running",
        "●    fetch (8)  8 succeeded",
        "├─╮",
        "● │  clean (8)  3 succeeded, 2 running, 3 ready",
        "│ ●  index      running",
        "├─╯",
        "●    report     waiting",
        "",
        "●    other      failed",
    ]


def test_graph_takes_letters_that_every_terminal_has() -> None:
    drawn = "\n".join(
        "".join(text for text, _ in row) for row in draw_text(PIPELINE, columns=80, letters=ASCII)
    )
    assert drawn.isascii()


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_row_of_a_graph_is_wider_than_it_may_be(columns: int) -> None:
    dense = [task(f"t{layer}{number}", *(f"t{layer - 1}{one}" for one in range(9) if layer), count=10)
             for layer in range(5) for number in range(9)]  # fmt: skip
    for drawn in (PIPELINE, graph(*dense), graph(task("名" * 40, count=3, succeeded=3))):
        for row in draw_text(drawn, columns=columns):
            assert show.width_of("".join(text for text, _ in row).rstrip()) <= columns


def test_picture_says_states_in_words_and_never_takes_a_name_for_markup() -> None:
    odd = graph(task("<script>", count=2, failed=1, skipped=1), task("b", "<script>", waiting=1))
    picture = ElementTree.fromstring(draw_svg(odd))
    texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["film: 3 tasks", "<script> (2)", "1 failed, 1 skipped", "b", "1 waiting"]


def test_edge_over_several_columns_has_a_place_in_each() -> None:
    long = graph(task("a"), task("b", "a"), task("c", "b"), task("d", "c", "a"))
    paths = [
        one.get("d", "") for one in ElementTree.fromstring(draw_svg(long)).iter() if one.get("fill") == "none"
    ]
    assert sorted(path.count("C") for path in paths) == [1, 1, 1, 3]


def test_graph_of_a_file_needs_no_agent(call: Call, home: Path) -> None:
    Path("film.yaml").write_text(FILM)
    assert call("jobs", "graph", "film.yaml").out.splitlines() == [
        "film: 4 tasks",
        "●  split",
        "●  render (3)",
    ]
    assert call("jobs", "graph", "film.yaml", "--svg", "film.svg").err == "drawn in film.svg\n"
    assert Path("film.svg").read_bytes().startswith(b"<?xml")
    assert call("jobs", "graph", "film.yaml", "--svg", "/nowhere/film.svg").code == 5
    assert call("jobs", "graph", "film.yaml", "--svg", "-", "--json").code == 2
    assert call("jobs", "graph", "absent.yaml").code == 2


def test_graph_of_a_job_is_asked_for(agent: FakeApi, call: Call, job: str) -> None:
    agent.drawn = PIPELINE
    assert call("jobs", "graph", "nightly").out.splitlines()[0] == "film: 19 tasks, running"
    assert agent.asked[-1] == ("graph", "nightly")


def test_graph_of_a_spec_names_each_need_once() -> None:
    needs = (Need(task="a", same_index=True), Need(task="a", into="all"))
    spec = JobSpec(
        name="j",
        tasks=(
            TaskSpec(name="a", argv=("x",), array=Array(size=3)),
            TaskSpec(name="b", argv=("x",), array=Array(size=3), needs=needs),
        ),
    )
    assert graph_of(spec).tasks[1] == task("b", "a", count=3)


def why(*reasons: WhyTasks) -> JobWhy:
    return JobWhy(job="j", name="film", state="running", owner="alpha", paused=False, reasons=reasons)


def drained(running: int, waiting: int, results: int) -> Drain:
    return Drain(node="beta", drained=True, running=running, waiting=waiting, results=results)
