"""What status says of agreement: the count, who differs in what, and from whom nothing was heard."""

from __future__ import annotations

import msgspec
import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_status

from meshpeer.app.cli.agreement import agreement_rows
from meshpeer.app.words import PARTS_IN_WORDS
from meshpeer.core.topology.digest import PARTS
from meshpeer.runtime.control import Agreement, Differing, Status, Unheard

AT = "2026-01-31T08:15:00.000000Z"


def differing(name: str, *parts: str, lasts_s: float = 12.0, travels: bool = False) -> Differing:
    return Differing(name=name, parts=parts, since=AT, lasts_s=lasts_s, travels=travels)


def silent(name: str, last_heard_s: float | None = 180.0) -> Unheard:
    return Unheard(name=name, last_heard_s=last_heard_s)


@pytest.mark.parametrize(
    ("agree", "differ", "unknown", "lines"),
    [
        (5, (), (), ["5/5"]),
        (4, (differing("delta", "doubts"),), (), ["4/5: delta differs in who is doubted, since 12 s"]),
        (4, (), (silent("echo"),), ["4/5: not heard from echo for 3 min"]),
        (4, (), (silent("echo", None),), ["4/5: not heard from echo yet"]),
        (
            3,
            (differing("bravo", "charter"), differing("delta", "charter", lasts_s=75)),
            (),
            ["3/5: bravo and delta differ in the charter, since 1 min 15 s"],
        ),
        (
            1,
            (differing("bravo", "members", "addresses", "hubs"), differing("delta", "mode")),
            (silent("echo"), silent("golf", 240.0)),
            [
                "1/5: bravo differs in who is in, addresses and the hubs, since 12 s",
                "delta differs in the mode (full or regional), since 12 s",
                "not heard from echo and golf for 3 min or more",
            ],
        ),
        (
            2,
            (
                differing("delta", "charter", lasts_s=3, travels=True),
                differing("bravo", "members", "mode", lasts_s=7, travels=True),
                differing("echo", "mode", lasts_s=45),
            ),
            (),
            [
                "2/5: echo differs in the mode (full or regional), since 45 s",
                "news is on its way to or from delta and bravo, since 7.0 s",
            ],
        ),
        (4, (differing("delta", "weather"),), (), ["4/5: delta differs in weather, since 12 s"]),
    ],
)
def test_status_counts_and_names(
    agent: FakeApi,
    call: Call,
    agree: int,
    differ: tuple[Differing, ...],
    unknown: tuple[Unheard, ...],
    lines: list[str],
) -> None:
    agent.now = make_status(agreement=Agreement(agree=agree, total=5, differ=differ, unknown=unknown))
    shown = call("status").out.splitlines()
    first = next(at for at, line in enumerate(shown) if line.startswith("  agreement  "))
    assert [line.strip() for line in shown[first : first + len(lines)]] == [
        f"agreement  {lines[0]}",
        *lines[1:],
    ]
    assert shown[first + len(lines)].startswith("  subnet")


def test_of_many_the_first_are_named_and_the_rest_is_counted() -> None:
    unknown = tuple(silent(f"n{number}") for number in range(40))
    [(_, text)] = agreement_rows(Agreement(agree=1, total=41, unknown=unknown))
    assert text == "1/41: not heard from n0, n1, n2, n3 and 36 more for 3 min or more"


def test_an_agent_of_an_earlier_version_is_read_and_nothing_is_said(agent: FakeApi, call: Call) -> None:
    assert "agreement" not in call("status").out
    earlier = msgspec.to_builtins(make_status())
    del earlier["agreement"]
    assert msgspec.convert(earlier, Status).agreement is None


def test_the_document_has_the_keys_of_the_contract(agent: FakeApi, call: Call) -> None:
    agent.now = make_status(
        agreement=Agreement(
            agree=3, total=5, differ=(differing("delta", "doubts"),), unknown=(silent("echo"),)
        )
    )
    found = call("status", "--json").json()
    assert isinstance(found, dict)
    assert found["agreement"] == {
        "agree": 3,
        "total": 5,
        "differ": [{"name": "delta", "in": ["doubts"], "since": AT, "lasts_s": 12.0, "travels": False}],
        "unknown": [{"name": "echo", "last_heard_s": 180.0}],
    }


def test_names_of_others_are_shown_clean(agent: FakeApi, call: Call) -> None:
    agent.now = make_status(agreement=Agreement(agree=1, total=2, differ=(differing("a\x1b[2Jb", "mode"),)))
    assert "\x1b" not in call("status").out


def test_every_part_has_words() -> None:
    assert tuple(PARTS_IN_WORDS) == PARTS
