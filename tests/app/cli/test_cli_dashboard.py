"""What ``meshpeer dashboard`` prints, and when it opens a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest
from cli_calls import Call
from fake_control_api import FakeApi

from meshpeer.app.cli import dashboard

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


def test_browser_is_told_a_path_and_no_token(
    agent: FakeApi, call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = home / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$@" > {home}/told; page=${{1#file://}}\n'
        f'cp "$page" {home}/page; stat -c "%a %n" "$page" "${{page%/*}}" > {home}/modes\n'
    )
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    # What it found on this machine before the test it is to find anew.
    monkeypatch.setattr(webbrowser, "_browsers", {})
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(dashboard, "_is_desktop", lambda: True)
    monkeypatch.setattr(dashboard, "KEPT_S", 0.0)
    assert call("dashboard").out == f"{LINK}\n"
    told = (home / "told").read_text()
    assert "token" not in told
    assert f"url={LINK}" in (home / "page").read_text()
    (file_mode, file), (folder_mode, folder) = (
        line.split(" ", 1) for line in (home / "modes").read_text().splitlines()
    )
    assert (file_mode, folder_mode) == ("600", "700")
    assert told == f"{Path(file).as_uri()}\n"
    assert not Path(folder).exists()


def test_without_an_agent_it_says_so(call: Call, home: object) -> None:
    assert call("dashboard").code == 3
