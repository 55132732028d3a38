"""The stage of a hostile member's tries: what was tried, what became of it, and the page that says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hostile_member import Member, Voice
from hostile_mesh import MEMORY_GROWS_MAX, Mesh, memory_bytes

from meshpeer.core.node.offences import OFFENDERS_MAX

Try = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the page."""

    chapter: str
    what: str
    """What the member does."""
    measured: str
    """What its function has looked at by the time that it returns."""
    run: Try


@dataclass(frozen=True, slots=True)
class Row:
    attempt: Attempt
    outcome: str


@dataclass(slots=True)
class Stage:
    """What one try has to work with, and what it showed of itself."""

    mesh: Mesh
    liar: Member
    over: str = ""
    brief: bool = False
    """Which of two rules ends the link depends on what was read by then: only that it ended is told."""

    async def see(self, voice: Voice) -> None:
        """Looks at what became of a link, once the agent has handled all that was said on it."""
        await voice.settled()
        self.over = self.over or voice.over


ATTEMPTS: list[Attempt] = []


def attempt(chapter: str, what: str, measured: str) -> Callable[[Try], Try]:
    """Makes a row of a function that tries something, and asserts what ``measured`` says."""

    def enlist(run: Try) -> Try:
        ATTEMPTS.append(Attempt(chapter, what, measured, run))
        return run

    return enlist


async def play(mesh: Mesh, one: Attempt) -> Row:
    """Runs one try and looks at the mesh afterwards; raises where an honest member was harmed."""
    stage = Stage(mesh, mesh.member())
    counts, memory = mesh.counts(), memory_bytes()
    await one.run(stage)
    await mesh.is_well()
    grown = memory_bytes() - memory
    assert grown < MEMORY_GROWS_MAX, f"{one.what}: memory grew by {grown} bytes"
    return Row(one, _outcome(stage, counts))


def _outcome(stage: Stage, before: dict[str, int]) -> str:
    if stage.brief:
        return "link closed" if stage.over else "link stays"
    honest = [agent.node for agent in stage.mesh.honest]
    offences = [node.offences[stage.liar.id] for node in honest if stage.liar.id in node.offences]
    why = offences[0].what if offences else stage.over
    said = [f"link closed: {why}" if stage.over else "link stays"]
    risen = [name for name, count in stage.mesh.counts().items() if count > before[name]]
    if risen:
        said.append("counted: " + ", ".join(f"`{name}`" for name in risen))
    if offences:
        said.append("named in `status`")
    if any(stage.liar.id in node.links._banned for node in honest):
        said.append("shut out for 10 minutes")
    for node in honest:
        # So many are remembered by name, and each try has a member of its own.
        assert len(node.offences) < OFFENDERS_MAX
    return "; ".join(said)


HEAD = """\
# What a hostile member gets

A member in good standing that runs a program of its own tries every line of the
[threat model](../security.md) that is about members. It has a valid certificate, a real link over TLS to a
real agent, and the project's own codecs; a second honest agent is linked to the first. After each try both
agents must hold the same facts, hold each other for alive, and keep their own invariants, and the process of
all three must not have grown by {memory} MiB. Each try has a member of its own.

This page is written by the tests that try it: `scripts/reference_hostile`. The test
`tests/app/hostile/test_hostile_member.py` fails where it is out of date. *Counted* names
[metrics](metrics.md), without their prefix.
"""


def page(rows: list[Row]) -> str:
    lines = [HEAD.format(memory=MEMORY_GROWS_MAX // 2**20)]
    chapter = ""
    for row in rows:
        if row.attempt.chapter != chapter:
            chapter = row.attempt.chapter
            lines += [
                f"## {chapter}\n",
                "| It tries | What becomes of it | What was seen |",
                "| --- | --- | --- |",
            ]
        cells = (row.attempt.what, row.outcome, row.attempt.measured)
        lines.append("| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |")
        if row is rows[-1] or rows[rows.index(row) + 1].attempt.chapter != chapter:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
