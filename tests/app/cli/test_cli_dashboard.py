"""What ``meshpeer dashboard`` prints, and when it opens a browser."""

from __future__ import annotations

import webbrowser

import pytest
from cli_calls import Call
from fake_control_api import FakeApi

LINK = "http://127.0.0.1:51822/dashboard/?token=t"


@pytest.mark.parametrize("arguments", [(), ("--quiet",)])
def test_the_link_is_printed_alone(agent: FakeApi, call: Call, arguments: tuple[str, ...]) -> None:
    ran = call("dashboard", *arguments)
    assert (ran.code, ran.out) == (0, f"{LINK}\n")


def test_the_document_has_the_link(agent: FakeApi, call: Call) -> None:
    assert call("dashboard", "--json").json() == {"url": LINK}


def test_no_browser_is_opened_where_nobody_sits(
    agent: FakeApi, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    call("dashboard")
    assert opened == []


def test_without_an_agent_it_says_so(call: Call, home: object) -> None:
    assert call("dashboard").code == 3
