"""What is seen of a machine: it is never an error that something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshpeer.adapters.machine import newest_file, observe_machine, resolve
from meshpeer.adapters.machine import observe as observing


def test_programs_disk_and_hosts_are_seen(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    seen = observe_machine(("sh", "no-such-program"), tmp_path / "not" / "there", hosts=hosts)
    assert seen.programs == ("sh",)
    assert seen.disk is not None
    assert 0 <= seen.disk.free_bytes <= seen.disk.total_bytes
    assert seen.hosts == "127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("script", "text", "why_not"),
    [
        ("echo '{}'", b"{}\n", ""),
        ("exit 1", None, "`nft list ruleset` failed" if os.geteuid() == 0 else "that takes root"),
        (None, None, "`nft` is not installed"),
    ],
)
def test_rules_that_can_not_be_had_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, text: bytes | None, why_not: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(observing, "SYSTEM_FOLDERS", str(tmp_path))
    if script is not None:
        nft = tmp_path / "nft"
        nft.write_text(f"#!/bin/sh\n{script}\n")
        nft.chmod(0o755)
    rules = observe_machine((), tmp_path, hosts=tmp_path / "none").ruleset
    assert (rules.text, rules.why_not) == (text, why_not)


def test_a_program_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "PROGRAM_S_MAX", 0.05)
    monkeypatch.setattr(observing, "SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    nft.chmod(0o755)
    assert observe_machine((), tmp_path, hosts=tmp_path).ruleset.why_not == "`nft` did not answer"


def test_a_name_that_nobody_knows_has_no_addresses() -> None:
    found = resolve(["localhost", "no-such-name.invalid", "localhost"])
    assert set(found["localhost"]) <= {"127.0.0.1", "::1"}
    assert found["localhost"]
    assert found["no-such-name.invalid"] == ()


def test_the_newest_file_of_a_folder_counts_and_none_is_none(tmp_path: Path) -> None:
    assert newest_file(tmp_path / "none") == 0.0
    (tmp_path / "folder").mkdir()
    for name, at_s in (("old", 1_000.0), ("new", 2_000.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at_s, at_s))
    assert newest_file(tmp_path) == 2_000.0
