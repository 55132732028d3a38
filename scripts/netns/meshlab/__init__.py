"""Labs: several real nodes on one machine, each in its own namespaces, described by a TOML file.

    with Lab.from_toml("scripts/netns/labs/lan3.toml") as lab:
        lab.node("alpha").run(["ping", "-c1", lab.node("bravo").address("lan0")])

Needs Linux, root, ``ip``, ``nft`` and ``nsenter``; imports nothing but the standard library. Nothing of a
lab stands in the machine's own namespaces: bridges live in a namespace of the lab, no namespace has a name
on disk, and every one is held by a process that ends when the process that made the lab ends, however that
happens.
"""

from __future__ import annotations

from meshlab.errors import CommandFailed, LabError
from meshlab.lab import Lab
from meshlab.node import Node
from meshlab.spec import LabSpec, missing_on_this_machine, parse_lab
from meshlab.traffic import Flow, Traffic

__all__ = [
    "CommandFailed",
    "Flow",
    "Lab",
    "LabError",
    "LabSpec",
    "Node",
    "Traffic",
    "missing_on_this_machine",
    "parse_lab",
]
