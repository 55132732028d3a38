#!/usr/bin/env python3
"""Which path two members reach, and how soon, by what stands before each: docs/reference/paths.md has it.

For each kind of machine that joins last, one lab: two machines that everybody reaches, one of each kind that
is a member already, and one behind the same router. Measured from when `meshpeer join` returns: the first
ping that is answered, and when `meshpeer peers` says that the tunnel is direct. Pings go out ten times a
second from the start. The median of the rounds, and the range. Needs root.

    .venv/bin/python scripts/bench/paths_table.py [--rounds 3] [--only KIND] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from meshlab import Lab, Node

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "paths.md"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
KINDS = {
    "none": "",
    "port-keeping": 'nat = "masquerade"',
    "symmetric": 'nat = "symmetric"',
    "UDP blocked": 'nat = "masquerade"\nblock = ["udp"]',
}
SAME = "same router"
WATCHED_S = 25.0
LOOK_S = 0.4
NEVER = float("inf")


@dataclass(frozen=True)
class Outcome:
    """What one pair came to in one round; seconds from the join's return."""

    first_ping_s: float
    direct_s: float
    path: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=KINDS, help="one kind of the machine that joins last")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    asked = parser.parse_args()
    found: dict[tuple[str, str], list[Outcome]] = {}
    for kind in [asked.only] if asked.only else KINDS:
        for number in range(asked.rounds):
            for other, outcome in measure(kind).items():
                found.setdefault((kind, other), []).append(outcome)
            print(f"{kind}: round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    table = "\n".join(table_of(found, asked.rounds))
    print(table)
    if asked.write:
        page = PAGE.read_text()
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def table_of(found: dict[tuple[str, str], list[Outcome]], rounds: int) -> list[str]:
    lines = [
        f"{rounds} rounds on {os.cpu_count()} cores, with {backend()}:",
        "",
        "| Before who joins and pings | Before the other | Path | First ping after | Direct after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (kind, other), outcomes in found.items():
        paths = " or ".join(sorted({one.path for one in outcomes}))
        pings, direct = ([getattr(one, name) for one in outcomes] for name in ("first_ping_s", "direct_s"))
        lines.append(f"| {kind} | {other} | {paths} | {spread(pings)} | {spread(direct)} |")
    return lines


def spread(spans_s: list[float]) -> str:
    """Returns the median and the range; how many of the rounds there was none."""
    there = sorted(one for one in spans_s if one != NEVER)
    if not there:
        return "-"
    text = f"{statistics.median(there):.1f} s"
    if len(there) > 1:
        text += f" ({there[0]:.1f} to {there[-1]:.1f})"
    return text if len(there) == len(spans_s) else f"{text}, {len(spans_s) - len(there)} times not at all"


def backend() -> str:
    with Lab.from_toml(
        'name = "look"\n[lans.net]\nipv4 = "198.51.100.0/24"\n[nodes.one]\nlans = ["net"]\n'
    ) as lab:
        made = lab.node("one").run(["ip", "link", "add", "try0", "type", "wireguard"], check=False)
        return "kernel WireGuard" if made.returncode == 0 else "wireguard-go"


def measure(kind: str) -> dict[str, Outcome]:
    """Returns what one fresh joiner comes to with a member behind each kind of router."""
    others = {f"member{number}": other for number, other in enumerate(KINDS)}
    if kind != "none":
        others["neighbour"] = SAME
    with Lab.from_toml(lab_of(kind, others)) as lab, tempfile.TemporaryDirectory() as folder:
        founder, joiner = lab.node("one"), lab.node("joiner")
        founder.run(["meshpeer", "init", "--name", "one", "--detach", "--quiet"])
        invite = founder.run(["meshpeer", "invite", "--quiet", "--uses", "7"]).stdout.strip()
        for name in ("two", *others):
            join(lab.node(name), invite)
        # Everybody's router is known by then, as in a mesh that has been there for a while.
        time.sleep(10)
        join(joiner, invite)
        begun = time.time()
        outs = {name: Path(folder) / name for name in others}
        pings = [ping(joiner, name, out) for name, out in outs.items()]
        direct, paths = watch(joiner, others, begun)
        for process in pings:
            process.kill()
            process.wait()
        return {
            other: Outcome(first_answer(outs[name], begun), direct.get(name, NEVER), paths[name])
            for name, other in others.items()
        }


def watch(node: Node, others: dict[str, str], begun: float) -> tuple[dict[str, float], dict[str, str]]:
    """Returns since when each tunnel is direct, of those that are in the end, and each path in the end."""
    direct: dict[str, float] = {}
    paths: dict[str, str] = {}
    while time.time() < begun + WATCHED_S:
        peers = json.loads(node.run(["meshpeer", "peers", "--json"]).stdout)
        at_s = time.time() - begun
        paths = {peer["name"]: peer["path"] for peer in peers}
        for name in others:
            if paths[name] == "direct":
                direct.setdefault(name, at_s)
            else:
                direct.pop(name, None)
        time.sleep(LOOK_S)
    return direct, paths


def join(node: Node, invite: str) -> None:
    node.run(["meshpeer", "join", invite, "--name", node.name, "--detach", "--quiet"])


def ping(node: Node, name: str, out: Path) -> subprocess.Popen[str]:
    with out.open("w") as file:
        return node.popen(["ping", "-n", "-D", "-i", "0.1", f"{name}.mesh"], stdout=file, stderr=file)


def first_answer(out: Path, begun: float) -> float:
    found = re.search(r"^\[([\d.]+)\] .* time=", out.read_text(), re.MULTILINE)
    return max(0.0, float(found[1]) - begun) if found else NEVER


def lab_of(kind: str, others: dict[str, str]) -> str:
    """Returns the text of a lab: the joiner behind its kind of router, one machine behind each kind."""
    text = ['name = "paths"', '[lans.net]\nipv4 = "198.51.100.0/24"']
    machines = {"one": "net", "two": "net", "joiner": place(text, "home", kind, 1)}
    for number, (name, other) in enumerate(others.items()):
        machines[name] = "home" if other == SAME else place(text, f"home{number}", other, 10 + number)
    return "\n".join([*text, *(f'[nodes.{name}]\nlans = ["{lan}"]' for name, lan in machines.items())]) + "\n"


def place(text: list[str], lan: str, kind: str, number: int) -> str:
    """Adds a LAN and its router where the kind has one; returns the LAN for a machine of that kind."""
    if not KINDS[kind]:
        return "net"
    text.append(f'[lans.{lan}]\nipv4 = "192.168.{number}.0/24"')
    text.append(f'[routers.r{number}]\noutside = "net"\ninside = ["{lan}"]\n{KINDS[kind]}')
    return lan


if __name__ == "__main__":
    main()
