"""Alerts and dashboards that come along ask for figures that an agent serves."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from meshpeer.adapters.web.page import render
from meshpeer.adapters.web.snapshot import Snapshot, WorkFigures
from meshpeer.core.counters import Counters

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples" / "monitoring"
FULL = Snapshot(
    version="1.2.3",
    counters=Counters(),
    members={"alive": 1},
    links=0,
    event_loop_lag_s=0.0,
    local_health=0,
    paths={"direct": 2, "relay": 1},
    certificate_ends_unix_s=1_900_000_000.0,
    issuer_heard_unix_s=1_800_000_000.5,
    work=WorkFigures(
        jobs={"going": 1, "blocked": 0},
        tasks={"ready": 3},
        slots=4,
        slots_busy=2,
        attempts_waiting=1,
        results_waiting=5,
    ),
)


def test_alerts_and_panels_ask_for_nothing_that_no_agent_serves() -> None:
    # By their lines of help: some have no sample while there is nothing to count.
    served = set(re.findall(r"^# HELP (\S+)", render(FULL)[0].decode(), re.MULTILINE))
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"][0]["rules"]
    board = json.loads((EXAMPLES / "grafana.json").read_text())
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = {name for text in asked for name in re.findall(r"\b(?:meshpeer|process)_[a-z_]+", text)}
    assert len(rules) > 8
    assert len(named) > 15
    assert named <= served


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('meshpeer_paths{path="relay"}', "1.0"),
        ('meshpeer_jobs{state="going"}', "1.0"),
        ('meshpeer_tasks{state="ready"}', "3.0"),
        ("meshpeer_slots", "4.0"),
        ("meshpeer_slots_busy", "2.0"),
        ("meshpeer_attempts_waiting", "1.0"),
        ("meshpeer_results_waiting", "5.0"),
        ("meshpeer_certificate_end_timestamp_seconds", "1.9e+09"),
        ("meshpeer_issuer_heard_timestamp_seconds", "1.8000000005e+09"),
    ],
)
def test_the_page_says_what_this_nodes_work_is(line: str, value: str) -> None:
    assert f"{line} {value}" in render(FULL)[0].decode().splitlines()


def test_times_that_nobody_knows_are_not_on_the_page() -> None:
    page = render(dataclasses.replace(FULL, certificate_ends_unix_s=None, issuer_heard_unix_s=None))[0]
    assert b"_timestamp_seconds" not in page
