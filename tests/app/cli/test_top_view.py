"""What `meshpeer top` draws, from two looks and the size of a terminal."""

from __future__ import annotations

import msgspec
import pytest
from fake_control_api import make_counts, make_job, make_peer, make_status
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.app.cli import show
from meshpeer.app.cli.top_view import Line, Look, draw
from meshpeer.runtime.control import Job, Peer


def test_a_screen_of_eighty_columns_says_who_does_what() -> None:
    before = look(peers=[peer("beta", rx_bytes=1_000, tx_bytes=0)])
    now = look(
        at_s=2.0,
        peers=[peer("beta", rx_bytes=5_096, tx_bytes=2_048, rtt_ms=0.5)],
        jobs=[job("film", running_on={"beta": 2, "alpha": 1})],
        status=make_status(node=msgspec.structs.replace(make_status().node, busy=1)),
    )
    assert text(draw(now, before, columns=80, rows=24, clock="12:00:00 UTC")) == [
        "alpha in home: ok  2 of 3 alive, 1 dead  agreement unknown  full    12:00:00 UTC",
        "",
        "MEMBER  STATE     PATH       RTT     IN/s    OUT/s  TASKS  REGION",
        "alpha   this one  -            -        -        -    1/4  eu",
        "beta    alive     direct  0.5 ms  2.0 KiB  1.0 KiB      2  us",
        "",
        "JOB       NAME  STATE    PROGRESS      DONE  RUNNING ON",
        "jfilm000  film  running  ██████        5/10  beta 2, alpha 1",
    ]


def test_who_is_in_trouble_comes_first_with_what_is_said_of_it() -> None:
    peers = [
        peer("beta"),
        peer("delta", state="suspect", observers=("beta", "echo"), path="none"),
        peer("charlie", state="dead", because="its link broke", path="none"),
    ]
    lines = text(draw(look(peers=peers), None, columns=100, rows=24, clock=""))
    assert [line.split()[0] for line in lines[3:]] == ["alpha", "charlie", "delta", "beta"]
    assert lines[4].endswith("its link broke")
    assert lines[5].endswith("suspected by beta, echo")


def test_what_has_no_room_is_counted_and_jobs_keep_some() -> None:
    peers = [peer(f"node-{number:03}") for number in range(200)]
    jobs = [job(f"film-{number:02}") for number in range(30)]
    lines = text(draw(look(peers=peers, jobs=jobs), None, columns=80, rows=24, clock=""))
    assert len(lines) <= 24
    shown = sum(line.startswith("node-") for line in lines)
    assert f"and {200 - shown} more members: `meshpeer peers`" in lines
    assert sum(line.startswith("jfilm") for line in lines) >= 5


def test_counters_that_began_anew_give_no_rate() -> None:
    lines = text(
        draw(
            look(at_s=1.0, peers=[peer("beta", rx_bytes=10, tx_bytes=0)]),
            look(peers=[peer("beta", rx_bytes=10_000, tx_bytes=0)]),
            columns=80,
            rows=24,
            clock="",
        )
    )
    assert lines[4].split()[3:6] == ["-", "-", "-"]


def test_what_is_old_says_so() -> None:
    old = look(jobs=[job("film")], silent=("delta",), jobs_trouble="jobs as of 11:59:00 UTC: too slow")
    lines = text(draw(old, None, columns=80, rows=24, clock="", stale="no agent answers since 12:00:00 UTC"))
    assert lines[1] == "no agent answers since 12:00:00 UTC"
    assert lines[-2:] == ["jobs as of 11:59:00 UTC: too slow", "not heard about their jobs: delta"]


@pytest.mark.parametrize("columns", [1, 20, 80])
@given(
    names=st.lists(st.text(min_size=1, max_size=40), max_size=30, unique=True),
    rows=st.integers(1, 40),
    going=st.integers(0, 20),
)
def test_no_line_is_wider_and_no_screen_higher_than_the_terminal(
    columns: int, names: list[str], rows: int, going: int
) -> None:
    peers = [
        peer(name, state=("alive", "suspect", "dead")[at % 3], because=name) for at, name in enumerate(names)
    ]
    jobs = [job(f"film-{number}") for number in range(going)]
    lines = draw(look(peers=peers, jobs=jobs), None, columns=columns, rows=rows, clock="12:00:00 UTC")
    assert len(lines) <= rows
    assert all(show.width_of("".join(piece for piece, _ in line)) <= columns for line in lines)


def look(at_s: float = 0.0, **changes: object) -> Look:
    fields = {"status": make_status(), "peers": [], "jobs": [], **changes}
    return Look(at_s=at_s, **fields)  # type: ignore[arg-type]


def peer(name: str, **changes: object) -> Peer:
    return make_peer(id=name, name=name, **{"rtt_ms": None, **changes})


def job(name: str, **changes: object) -> Job:
    counts = make_counts(total=10, succeeded=5, running=3, waiting=2)
    return make_job(id=f"j{name}000000", name=name, tasks=counts, **changes)


def text(lines: list[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]
