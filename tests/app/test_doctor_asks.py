"""Whoever asks members and is not answered is not kept from asking again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from meshpeer.app import api_doctor
from meshpeer.app.agent import Agent
from meshpeer.app.api_doctor import DoctorAnswers
from meshpeer.core.ids import NodeId
from meshpeer.runtime.doctor import Finding

SILENT = NodeId(bytes(32))


async def test_a_member_that_answers_no_dial_back_does_not_break_the_next_doctor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_doctor, "WAIT_S", 0.01)
    answers = DoctorAnswers()
    answers._agent = agent()
    for _ in range(2):
        found: list[Finding] = []
        await answers._ask_members(found)
        assert [one.check for one in found] == ["control"]


def agent() -> Agent:
    """An agent that is linked to one member, who never answers."""
    dialbacks = SimpleNamespace(asked=(SILENT,), is_answered=False, heard={})
    node = SimpleNamespace(
        me=NodeId(bytes([1]) * 32),
        links=SimpleNamespace(peers=[SILENT], remote_of=lambda _: "203.0.113.9:51821"),
        dialbacks=dialbacks,
        ledger=SimpleNamespace(may=lambda *_: False, get=lambda _: None),
        roster=SimpleNamespace(get=lambda _: None),
    )
    return cast(
        Agent,
        SimpleNamespace(
            node=node,
            driver=SimpleNamespace(step_now=lambda _: None),
            state=SimpleNamespace(node=SimpleNamespace(endpoint="")),
            transport=SimpleNamespace(port=51821),
        ),
    )
