"""A large file through three dependent tasks on three machines, for the test and for the bench."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import meshkit
import msgspec
from meshlab import Lab, Node

SLOTS = {"alpha": 4, "bravo": 2, "charlie": 1}
"""By how wide a task is it can run on fewer of them; what is to keep a wide one busy runs there before."""
UIDS = "62400-62463"
"""Not the usual ones: a file takes its time, and an agent that starts on this machine meanwhile, outside of
the lab, ends whatever runs as its own tasks' users."""
BLOCK_BYTES = 1024 * 1024
INCOMING = f"{meshkit.STATE_DIR}/blobs/incoming"
_MAKE = """
import random
source = random.Random(7)
with open("large.bin", "wb") as file:
    for _ in range({blocks}):
        file.write(source.randbytes({block}))
"""
_FLIP = """
table = bytes(255 - one for one in range(256))
with open("large.bin", "rb") as source, open("flipped.bin", "wb") as target:
    while block := source.read({block}):
        target.write(block.translate(table))
"""
_CHECK = """
import hashlib
table, sums = bytes(255 - one for one in range(256)), (hashlib.sha256(), hashlib.sha256())
with open("flipped.bin", "rb") as source:
    while block := source.read({block}):
        sums[0].update(block)
        sums[1].update(block.translate(table))
with open("sums.txt", "w") as target:
    print(*(one.hexdigest() for one in sums), file=target)
open({done!r}, "a").write("done")
"""


def found(lab: Lab, caches: dict[str, int], *, room: str = "4g", output_bytes: int = 0) -> None:
    """Founds a mesh whose members have so many slots, and caches of so many bytes where that is said.

    ``room`` is the size of state folders in memory; nothing for ones that stand on a disk. ``output_bytes``
    is what a task and its files may come to; 0 for the usual.
    """
    for name, slots in SLOTS.items():
        if room:
            lab.node(name).limit_state_dir(room)
        cache = f"cache_bytes_max = {caches[name]}\n" if name in caches else ""
        output = f"output_bytes_max = {output_bytes}\n" if output_bytes else ""
        settings = f'[jobs]\nslots = {slots}\nuids = "{UIDS}"\n{cache}{output}'
        lab.node(name).put_file("/etc/meshpeer/meshpeer.toml", settings)
    # Files go over links: without interfaces the lab is up sooner.
    first, *others = SLOTS
    meshkit.found(lab.node(first), "--backend", "none")
    text = meshkit.invite(lab.node(first), "--uses", str(len(others)))
    for name in others:
        meshkit.join(lab.node(name), text, "--backend", "none")


def job(folder: Path, blocks: int) -> str:
    """Returns a job that makes a file on alpha, turns its bits over on bravo and sums it up on charlie.

    ``folder`` holds the file ``ended``, which the last task writes to.
    """
    size = 2 * (blocks + 64) * BLOCK_BYTES
    done = str(folder / "ended")
    busy = f"while [ ! -s {done} ]; do sleep 0.2; done"

    def python(text: str) -> list[str]:
        return ["python3", "-c", text.format(blocks=blocks, block=BLOCK_BYTES, done=done)]

    tasks = {
        "make": {"run": python(_MAKE), "resources": {"cpu": 4}, "outputs": ["large.bin"]},
        "busy-alpha": {"run": busy, "resources": {"cpu": 4}},
        "flip": {
            "needs": ["make"],
            "run": python(_FLIP),
            "resources": {"cpu": 2},
            "outputs": ["flipped.bin"],
        },
        "busy-bravo": {"needs": ["flip"], "run": busy, "resources": {"cpu": 2}},
        "check": {"needs": ["flip"], "run": python(_CHECK), "outputs": ["sums.txt"]},
    }
    defaults = {"limits": {"output": f"{size}B"}, "retries": 2, "on_failure": "fail-fast"}
    document = {"name": "large", "defaults": defaults, "tasks": tasks}
    return msgspec.json.encode(document).decode()


def sums(blocks: int) -> tuple[str, str]:
    """Returns the SHA-256 of the flipped file, and of the file: what the last task is to find."""
    source, table = random.Random(7), bytes(255 - one for one in range(256))
    plain, flipped = hashlib.sha256(), hashlib.sha256()
    for _ in range(blocks):
        block = source.randbytes(BLOCK_BYTES)
        plain.update(block)
        flipped.update(block.translate(table))
    return flipped.hexdigest(), plain.hexdigest()


def part_bytes(node: Node) -> int:
    """Returns how much of the largest file that is on its way to a machine is there."""
    sizes = [0]
    for one in node.path(INCOMING).glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(one.stat().st_size)
    return max(sizes)


def cut_links(node: Node) -> None:
    """Ends all TCP connections of a machine's agent, as a router does that forgot them: resets to both."""
    node.run(["ss", "-K", "sport", "=", ":51821"], check=False)
    node.run(["ss", "-K", "dport", "=", ":51821"], check=False)


def received_bytes(node: Node) -> int:
    """Returns what came to a machine by its network, of everything."""
    counted = node.run(["cat", "/proc/net/dev"]).stdout.splitlines()[2:]
    fields = [line.replace(":", " ").split() for line in counted]
    return sum(int(one[1]) for one in fields if one[0] != "lo" and not one[0].startswith("wg"))


def resident(node: Node, what: str = "VmRSS") -> int:
    """Returns the resident memory of a machine's agent in bytes; ``VmHWM`` is the most it ever was."""
    (pid, *_) = meshkit.agents(node)
    status = node.run(["cat", f"/proc/{pid}/status"]).stdout
    (line,) = [one for one in status.splitlines() if one.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


def wait(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Polls as often as a file may be cut in mid-way; fails after a bound with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def folder_for_marks() -> Iterator[Path]:
    with meshkit.open_folder() as folder:
        yield folder
