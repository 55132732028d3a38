"""Scenario files: what is off is named with file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshpeer.core.errors import LocalFault
from meshpeer.sim.scenario import Crash, Partition, load_scenario, parse_scenario

pytestmark = pytest.mark.sim

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples/sim"
REGIONS = """
[[regions]]
name = "here"
share = 0.5
latency_ms = [1, 50]
[[regions]]
name = "there"
share = 0.5
latency_ms = [50, 1]
"""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_well_formed(path: Path) -> None:
    assert load_scenario(path).name == path.stem


def test_events_are_read_as_what_they_are() -> None:
    found = parse_scenario(
        f"size = 10\n{REGIONS}"
        '[[events]]\nat_s = 1\ndo = "partition"\nfor_s = 5\nregions = [["here"], ["there"]]\n'
        '[[events]]\nat_s = 2\ndo = "crash"\nshare = 0.5\nsilent = true\n',
        "file.toml",
    )
    assert found.events == (
        Partition(at_s=1.0, for_s=5.0, regions=(("here",), ("there",))),
        Crash(at_s=2.0, share=0.5, silent=True),
    )


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("size = 1", "size: expected 'int' >= 2", "keys allowed there"),
        ("size = 'ten'", "size: expected 'int'", "keys allowed there"),
        ("seed = 1", "the file: object missing required field 'size'", "keys allowed there: name"),
        ("size = 5\ncolour = 1", "unknown field 'colour'", "keys allowed there: name, size"),
        ("size = 5\nboot = 'hot'", "boot: invalid enum value 'hot'", "one of cold, warm"),
        ("size = 5\nloss = 0.9", "loss: expected 'float' <= 0.5", "keys allowed there"),
        ("size = 5\n[expect]\nsoon = 1", "expect: object contains unknown field 'soon'", "all_know_within_s"),
        ("size = 5\n[[events]]\nat_s = 1\ndo = 'dance'", "events[0].do: invalid value 'dance'", "partition"),
        ("size = 5\n[[events]]\ndo = 'crash'", "missing required field 'at_s'", "count, share, silent"),
        (
            "size = 5\n[[events]]\nat_s = 1\ndo = 'crash'",
            "not exactly one of count and share",
            "say how many",
        ),
        ("size = 5\n[[events]]\nat_s = 99\ndo = 'change'", "events[0].at_s: is after the end", "duration_s"),
        ("size = 5\n[[events]]\nat_s = 1\ndo = 'leave'\ncount = 5", "all 5 hosts or more", "leave at least"),
        (
            "size = 5\n[[events]]\nat_s = 1\ndo = 'rogue'\nkind = 'rude'",
            "events[0].kind: invalid enum value 'rude'",
            "one of forged, counters",
        ),
        (f"size = 5\n{REGIONS}".replace("[1, 50]", "[1]"), "regions[0].latency_ms: has 1 values", "order"),
        (
            "size = 5\n[sweep]\nover = 'size'\nvalues = [1, 5]",
            "sweep.values: sizes are whole numbers from 2 on",
            "10, 30, 100",
        ),
        ("size = [", "file.toml: ", "toml.io"),
    ],
)
def test_what_is_off_is_named_with_what_is_allowed(text: str, what: str, hint: str) -> None:
    with pytest.raises(LocalFault) as caught:
        parse_scenario(text, "file.toml")
    assert caught.value.what.startswith("file.toml: ")
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(LocalFault, match=r"nowhere\.toml can't be read"):
        load_scenario(Path("nowhere.toml"))
