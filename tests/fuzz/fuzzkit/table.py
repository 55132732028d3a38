"""The table of all targets, by name."""

from __future__ import annotations

from fuzzkit import identity, links, machine, people
from fuzzkit.target import Target

TARGETS: dict[str, Target] = {
    one.name: one
    for one in sorted(
        (*links.TARGETS, *identity.TARGETS, *machine.TARGETS, *people.TARGETS), key=lambda one: one.name
    )
}
