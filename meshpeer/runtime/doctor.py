"""What a doctor finds: the documents of ``meshpeer doctor`` and of ``GET /v1/doctor``; keys are only ever
added."""

from __future__ import annotations

from collections.abc import Iterable

from meshpeer.runtime.control import Doc

OK, WARNING, BAD, UNKNOWN = "ok", "warning", "bad", "unknown"
"""Levels of a finding. ``unknown``: nobody can tell here, which is nothing to mend."""


class Finding(Doc, frozen=True, kw_only=True):
    """The outcome of one check."""

    group: str
    check: str
    """Which one; for programs."""
    level: str
    text: str
    """What was found, in a sentence."""
    todo: tuple[str, ...] = ()
    """What mends it: sentences that name commands."""


class AgentFindings(Doc, frozen=True, kw_only=True):
    """What an agent can tell of itself, and what it takes to check its machine."""

    findings: tuple[Finding, ...]
    name: str
    interface: str
    """Empty where the node has none."""
    wireguard_port: int
    """0 where the node has no interface."""
    control_port: int
    forwards: bool
    """This node passes on traffic of others: as a hub, or to LANs."""
    keeps_hosts: bool
    """The agent writes names into the hosts file."""


class Doctor(Doc, frozen=True, kw_only=True):
    """All that was found."""

    agent: bool
    """An agent runs, and was asked."""
    bad: int
    warnings: int
    ok: int
    unknown: int
    findings: tuple[Finding, ...]


def diagnosis(findings: Iterable[Finding], *, agent: bool) -> Doctor:
    """Returns the whole document, with what was found counted."""
    found = tuple(findings)
    levels = [one.level for one in found]
    return Doctor(
        agent=agent,
        bad=levels.count(BAD),
        warnings=levels.count(WARNING),
        ok=levels.count(OK),
        unknown=levels.count(UNKNOWN),
        findings=found,
    )
