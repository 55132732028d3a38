"""Lines of the log: read by people, by programs, and written to by strangers."""

from __future__ import annotations

import errno
import io
import json
import re

import pytest

from meshpeer.app.log import Log


def test_text_says_when_how_grave_what_and_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    Log("info", "text").write("warning", "link refused", (("peer", "abc"), ("reason", "no room")))
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[warning  \] link refused peer=abc reason='no room'\n", line
    )


def test_json_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Log("info", "json").write("error", "disk full", (("hint", "make\nroom"), ("level", "theirs")))
    document = json.loads(capsys.readouterr().err)
    assert document.pop("timestamp").endswith("Z")
    assert document == {"event": "disk full", "level": "error", "hint": "make\nroom"}


@pytest.mark.parametrize(("least", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_less_grave_than_asked_is_left_out(
    capsys: pytest.CaptureFixture[str], least: str, seen: int
) -> None:
    for level in ("debug", "info", "warning", "error"):
        Log(least, "text").write(level, "something", ())
    assert len(capsys.readouterr().err.splitlines()) == seen


def test_a_listener_is_told_of_all_but_debugging_whatever_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, heard = Log("error", "text"), []
    log.listener = lambda level, fact, fields: heard.append((level, fact, fields))
    for level in ("debug", "info", "warning"):
        log.write(level, "something", (("peer", "abc"),))
    assert heard == [(level, "something", (("peer", "abc"),)) for level in ("info", "warning")]
    assert capsys.readouterr().err == ""


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_can_not_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Full())
    Log("info", "text").write("info", "something", ())


@pytest.mark.parametrize("value", ["\x1b[2J", "a\nb", "", "x='y'", "two words", "\u202egnp"])
def test_what_others_chose_forges_no_line_and_moves_no_cursor(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    Log("info", "text").write("info", "joined", (("name", value),))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"joined name={value!r}")
    assert line.isprintable()
