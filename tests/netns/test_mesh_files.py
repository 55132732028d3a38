"""A large file on its way through three machines: cut twice, whole in the end, and never whole in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import filekit
import meshkit
import pytest
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

BLOCKS = 96
SIZE = BLOCKS * filekit.BLOCK_BYTES
CACHE_BYTES = SIZE // 2
GROWTH_BYTES_MAX = 32 * 1024**2
"""Of an agent's resident memory, while three times as much and more goes through it."""


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*filekit.SLOTS)) as lab:
        filekit.found(lab, {"charlie": CACHE_BYTES})
        yield lab


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def job(lab: Lab, folder: Path) -> str:
    """Runs the job, cutting both transfers; returns its id."""
    alpha, bravo, charlie = (lab.node(name) for name in filekit.SLOTS)
    before = {node.name: filekit.resident(node) for node in (alpha, bravo, charlie)}
    job = meshkit.submit(alpha, filekit.job(folder, BLOCKS))
    filekit.wait(lambda: filekit.part_bytes(bravo) > SIZE // 3, "a third is at bravo", 60)
    filekit.cut_links(bravo)
    filekit.wait(lambda: filekit.part_bytes(charlie) > SIZE // 3, "a third is at charlie", 60)
    grown = {"charlie": filekit.resident(charlie, "VmHWM") - before["charlie"]}
    meshkit.kill_agent(charlie)
    kept = filekit.part_bytes(charlie)
    assert kept > SIZE // 3
    came = filekit.received_bytes(charlie)
    meshkit.meshpeer(charlie, "up", "--detach")
    alpha.run(["meshpeer", "jobs", "watch", job], timeout=120)
    came = filekit.received_bytes(charlie) - came
    assert came < (SIZE - kept) * 1.15 + 8 * 1024**2, "what was there did not come again"
    grown |= {node.name: filekit.resident(node, "VmHWM") - before[node.name] for node in (alpha, bravo)}
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    print("grown", grown)
    return job


def test_a_large_file_goes_through_three_machines_whole_although_it_is_cut_twice(lab: Lab, job: str) -> None:
    alpha = lab.node("alpha")
    tasks = {task.id: task for task in meshkit.tasks(alpha, job)}
    assert {name: tasks[name].node for name in ("make", "flip", "check")} == {
        "make": "alpha",
        "flip": "bravo",
        "check": "charlie",
    }
    assert meshkit.job(alpha, job).state == "succeeded"
    # A cut link costs no attempt; a killed agent does.
    assert [one.state for one in tasks["flip"].attempts] == ["succeeded"]
    meshkit.meshpeer(alpha, "jobs", "result", job, "check", "--output", "/run/got")
    assert alpha.path("/run/got/sums.txt").read_text().split() == list(filekit.sums(BLOCKS))


def test_a_result_is_fetched_whole_and_again_only_where_it_is_not_there(lab: Lab, job: str) -> None:
    alpha = lab.node("alpha")
    meshkit.meshpeer(alpha, "jobs", "result", job, "flip", "--output", "/run/got", timeout=120)
    fetched = alpha.path("/run/got/flipped.bin")
    with fetched.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == filekit.sums(BLOCKS)[0]
    fetched.write_bytes(b"something else")
    refused = meshkit.fails(alpha, 2, "jobs", "result", job, "flip", "--output", "/run/got")
    assert "is there already" in refused.what


def test_a_cache_ends_below_its_cap_once_nobody_needs_the_file(lab: Lab, job: str) -> None:
    charlie = lab.node("charlie")
    meshkit.until(lambda: stored_bytes(charlie) < CACHE_BYTES, "charlie has room again", 30)
    # What it made itself is a result, and stays.
    alpha = lab.node("alpha")
    meshkit.meshpeer(alpha, "jobs", "result", job, "check", "--output", "/run/again")


def stored_bytes(node: Node) -> int:
    return sum(
        one.stat().st_size for one in node.path(f"{meshkit.STATE_DIR}/blobs").rglob("*") if one.is_file()
    )
