"""The examples of the page on the client, as a reader would run them, and by the types that they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_process import AgentProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples/client"
PRINTED = {
    "primes.py": "78,498 primes below a million\nby 8 tasks\n",
    "futures.py": (
        "refused: ValueError: '4 frames' is no word (a ValueError)\n"
        "film weighs 424\njudge weighs 527\nrender weighs 640\nlongest: 8\n"
    ),
    "jobfile.py": (
        "{'area': 4, 'unit': 'cm'}\n{'area': 9, 'unit': 'cm'}\n{'area': 25, 'unit': 'cm'}\n38 cm²\n"
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_its_page_says(agent: AgentProcess, name: str) -> None:
    assert printed_by(agent, name) == PRINTED[name]


def test_the_example_for_trio_sees_states_and_results(agent: AgentProcess) -> None:
    *states, one, two, three, four, log = printed_by(agent, "watching.py").splitlines()
    assert states[-1] == "the job is succeeded"
    assert [one, two, three, four, log] == ["#", "##", "###", "####", "frame 3 is drawn"]


def test_no_example_is_without_a_test() -> None:
    assert {one.name for one in EXAMPLES.glob("*.py")} == {*PRINTED, "watching.py", "shapes.py"}


def printed_by(agent: AgentProcess, name: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        env={**os.environ, "MESHPEER_RUN_DIR": str(agent.run_dir)},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    )
    return ended.stdout.decode()
