"""``scripts/netns/lab``: labs for people. ``lab up`` leaves one running; ``lab down`` ends it by one
signal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from meshlab import registry
from meshlab.errors import LabError
from meshlab.kept import attach, start_kept
from meshlab.spec import parse_lab

_DESCRIPTION = (
    "Several real machines on this one: nodes in namespaces of their own, described by a TOML file."
)
_EXAMPLES = """examples:
  lab up scripts/netns/labs/lan3.toml      three nodes on one LAN
  lab exec alpha -- meshpeer status        a command in one of them
  lab exec alpha                           a shell in it
  lab down                                 end it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 done, 1 failed, 2 wrong usage, else that of the command in
    a node."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "up":
            return _up(options.file)
        if options.command == "exec":
            return _exec(options.lab, options.node, options.words)
        if options.command == "down":
            return _down(options.name, everything=options.all)
        return _list()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lab", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start a lab and leave it running")
    up.add_argument("file", type=Path, metavar="FILE.toml")
    execute = commands.add_parser("exec", help="run a command in a node (a shell, unless named)")
    execute.add_argument("--lab", metavar="NAME", default=os.environ.get("MESHPEER_LAB"))
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    down = commands.add_parser("down", help="end a lab: its processes, namespaces and interfaces")
    down.add_argument("name", nargs="?", metavar="NAME")
    down.add_argument("--all", action="store_true", help="end all labs of this machine")
    commands.add_parser("list", help="show the labs that run, and their nodes")
    return parser


def _up(file: Path) -> int:
    spec = parse_lab(file)
    name = start_kept(spec)
    print(f"{name}: {', '.join(spec.nodes)}")
    print(f"  enter a node: scripts/netns/lab exec {next(iter(spec.nodes))} -- bash")
    print(f"  end it:       scripts/netns/lab down {name}")
    return 0


def _exec(name: str | None, node_name: str, words: Sequence[str]) -> int:
    record = registry.find_lab(name)
    if node_name not in record.inits:
        raise LabError(f"{record.name} has no node {node_name!r}", f"known: {', '.join(record.inits)}")
    argv = [*(words[1:] if words[:1] == ["--"] else words)] or ["bash"]
    process = attach(record)[node_name].popen(argv, stdin=None)
    # Ctrl-C reaches the command by itself: it stands in front at the same terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code


def _down(name: str | None, *, everything: bool) -> int:
    labs = registry.running_labs() if everything else [registry.find_lab(name)]
    for record in labs:
        registry.end_lab(record)
        print(f"{record.name}: ended")
    return 0


def _list() -> int:
    labs = registry.running_labs()
    for record in labs:
        print(f"{record.name}  owner {record.owner.pid}{'' if record.kept else ' (ends with it)'}")
        for name, lans in record.addresses.items():
            shown = "  ".join(f"{lan} {' '.join(addresses)}" for lan, addresses in lans.items())
            print(f"  {name:<12} {shown}")
    if not labs:
        print("no lab is running")
    return 0
