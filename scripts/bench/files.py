#!/usr/bin/env python3
"""A large file through three dependent tasks on three machines, each transfer cut once.

One task makes the file on alpha, the next turns its bits over on bravo, the last sums it up on charlie. On
its way to bravo it is cut by ending bravo's TCP connections, on its way to charlie by `kill -9` of charlie's
agent. Meanwhile alpha is asked every second what it thinks of the others. Prints what came when, what the
agents' memory grew by, whether anybody was suspected, and whether the bytes are right. Needs root, and disk:
about seven times the size, in --folder.

    .venv/bin/python scripts/bench/files.py [--size 5GB] [--folder /var/tmp]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "netns"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

import filekit
import meshkit
from meshlab import Lab, Node

UNITS = {"MB": 10**6, "GB": 10**9}
WAIT_S = 3_600.0
COPIES = 7
OUT = f"{meshkit.STATE_DIR}/got"
"""On the disk of --folder, as all that a machine of the lab keeps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="5GB")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    asked = parser.parse_args()
    number, unit = re.fullmatch(r"(\d+)(MB|GB)", asked.size).groups()  # type: ignore[union-attr]
    blocks = int(number) * UNITS[unit] // filekit.BLOCK_BYTES
    free = shutil.disk_usage(asked.folder).free
    if free < COPIES * blocks * filekit.BLOCK_BYTES:
        raise SystemExit(f"{asked.folder} has {free:,} bytes free: {COPIES} times the file are needed")
    scratch = Path(tempfile.mkdtemp(prefix="meshpeer-files-", dir=asked.folder))
    scratch.chmod(0o755)
    try:
        with Lab.from_toml(meshkit.lan(*filekit.SLOTS)) as lab, meshkit.open_folder() as marks:
            for name in filekit.SLOTS:
                (scratch / name).mkdir(mode=0o755)
                lab.node(name).run(["mount", "--bind", str(scratch / name), meshkit.STATE_DIR])
            # A task has the file twice in its folder, as it came and as it made it, and logs.
            filekit.found(lab, {}, room="", output_bytes=3 * blocks * filekit.BLOCK_BYTES)
            measure(lab, marks, blocks)
    finally:
        shutil.rmtree(scratch)


def measure(lab: Lab, marks: Path, blocks: int) -> None:
    alpha, bravo, charlie = nodes = [lab.node(name) for name in filekit.SLOTS]
    size = blocks * filekit.BLOCK_BYTES
    before = {node.name: filekit.resident(node) for node in nodes}
    grown = dict.fromkeys(before, 0)
    watch = Watch(alpha)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    job = meshkit.submit(alpha, filekit.job(marks, blocks))

    def wait(condition: Callable[[], bool], what: str) -> None:
        filekit.wait(lambda: condition() or watch.ended, what, WAIT_S)
        if watch.ended:
            raise SystemExit(f"the job ended before {what}:\n{meshkit.meshpeer(alpha, 'jobs', 'tasks', job)}")

    watch.job = job
    with watch:
        wait(lambda: filekit.part_bytes(bravo) > 0, "the file sets out for bravo")
        first = time.monotonic()
        wait(lambda: filekit.part_bytes(bravo) > size // 2, "half is at bravo")
        took = time.monotonic() - first
        say(f"half of it is at bravo, at {size / 2 / took / 1e6:.0f} MB/s: its connections are ended")
        print("           " + said(alpha, job, "flip"))
        filekit.cut_links(bravo)
        wait(lambda: filekit.part_bytes(charlie) > 0, "the file sets out for charlie")
        say("the file sets out for charlie")
        first = time.monotonic()
        wait(lambda: filekit.part_bytes(charlie) > size // 2, "half is at charlie")
        took = time.monotonic() - first
        grown["charlie"] = filekit.resident(charlie, "VmHWM") - before["charlie"]
        kept = filekit.part_bytes(charlie)
        meshkit.kill_agent(charlie)
        say(f"half of it is at charlie, at {size / 2 / took / 1e6:.0f} MB/s: its agent is killed")
        came = filekit.received_bytes(charlie)
        meshkit.meshpeer(charlie, "up", "--detach")
        alpha.run(["meshpeer", "jobs", "watch", job], timeout=WAIT_S, check=False)
        state = meshkit.job(alpha, job).state
        came = filekit.received_bytes(charlie) - came
        say(f"the job has {state}; after its restart {came / 1e9:.2f} GB came to charlie")
        say(f"(of {size / 1e9:.2f} GB it had {kept / 1e9:.2f} GB)")
    for node in nodes:
        grown[node.name] = max(grown[node.name], filekit.resident(node, "VmHWM") - before[node.name])
    for task in meshkit.tasks(alpha, job):
        tries = ", ".join(f"{one.node} {one.state} {one.error}".strip() for one in task.attempts)
        print(f"           {task.id}: {tries}")
    print("resident memory grew by", ", ".join(f"{name} {by / 2**20:.0f} MiB" for name, by in grown.items()))
    print(watch.words())
    meshkit.meshpeer(alpha, "jobs", "result", job, "check", "--output", OUT, timeout=WAIT_S)
    found = alpha.path(f"{OUT}/sums.txt").read_text().split()
    print("the bytes are", "right" if found == list(filekit.sums(blocks)) else "WRONG")
    first = time.monotonic()
    meshkit.meshpeer(alpha, "jobs", "result", job, "flip", "--output", OUT, timeout=WAIT_S)
    took = time.monotonic() - first
    print(f"`jobs result --output` of the flipped file on alpha: {took:.0f} s ({size / took / 1e6:.0f} MB/s)")


def said(alpha: Node, job: str, task: str) -> str:
    """Returns what `jobs tasks` says of a task."""
    lines = meshkit.meshpeer(alpha, "jobs", "tasks", job).splitlines()
    return next(line for line in lines if line.lstrip().startswith(task))


class Watch(threading.Thread):
    """Asks alpha once a second what it thinks of the others."""

    def __init__(self, alpha: Node) -> None:
        super().__init__(daemon=True)
        self._alpha = alpha
        self._over = threading.Event()
        self.asked = 0
        self.slowest_s = 0.0
        self.states: dict[str, list[str]] = {}
        self.job, self.ended = "", False  # the one that is looked at, too

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(1.0):
            began = time.monotonic()
            for name, peer in meshkit.peers(self._alpha).items():
                seen = self.states.setdefault(name, ["alive"])
                if seen[-1] != peer.state:
                    seen.append(peer.state)
            if meshkit.job(self._alpha, self.job).finished_at is not None:
                self.ended = True
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.asked += 1

    def words(self) -> str:
        states = "; ".join(f"{name} {' -> '.join(seen)}" for name, seen in sorted(self.states.items()))
        return f"alpha of the others, {self.asked} looks, the slowest {self.slowest_s:.1f} s: {states}"


if __name__ == "__main__":
    main()
