"""Tells in sentences what changed between two views of a mesh, and why as far as the rows say so. Pure.

A reason is told where this node has one: of an opinion, what it rests on and who else holds it; of a path,
what it was before. What moves all the time (round trips, counts of tasks) is no story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from meshpeer.app.board.build import unix_s
from meshpeer.app.board.rows import JobRow, MemberRow, MeshRow, StoryRow
from meshpeer.core.errors import PeerFault
from meshpeer.runtime.board import View

STORY_MAX, LOGGED_MAX = 300, 100
"""Rows that are kept of what changed, and of what the agent logged; the oldest go first."""
NEWS_S = 60.0
"""Of a job that was not known before, what is older is no news: others are first asked for theirs when a page
is opened, and anew after they were silent. Looks, rounds of questions and clocks differ by less."""
BECAUSE_LETTERS_MAX = 500
ID_LETTERS_MIN = 8
"""Of the beginning of an id that is taken for its member."""
_TONES = {"alive": "good", "suspect": "doubt", "dead": "bad", "revoked": "bad"}
_STATES = {
    "alive": "is alive",
    "suspect": "is suspected",
    "dead": "is taken for dead",
    "left": "has left for good",
    "revoked": "is revoked",
}
_AGREEMENT = {
    "agrees": "derives the plan from the same facts as this node",
    "differs": "derives the plan from other facts than this node",
    "unknown": "has not said of late from what it derives the plan",
}
_WORK = {"accepts": "takes work", "drained": "is drained: it takes no new work", "none": "takes no work"}
_ENDS = {"succeeded": "good", "failed": "bad", "cancelled": "doubt"}


def tell(old: View, new: View, at: float) -> list[StoryRow]:
    """Returns what happened between two views, in the order of their tables."""
    if not old.table("mesh"):
        return []
    return [*_mesh(old, new, at), *_members(old, new, at), *_jobs(old, new, at)]


def tell_logged(
    level: str, fact: str, fields: tuple[tuple[str, str], ...], names: Mapping[str, str], at: float
) -> StoryRow:
    """Returns what the agent logged as a line of the story, with members' ``names`` (by id) for the ids, or
    beginnings of ids, that logs have; letters that are none are shown as they are written in programs, since
    others chose some of them."""
    said = ", ".join(f"{key}: {_shown(value, names)}" for key, value in fields)
    tone = {"warning": "doubt", "error": "bad"}.get(level, "")
    return StoryRow(at=at, kind="log", text=fact, because=said[:BECAUSE_LETTERS_MAX], tone=tone)


def _shown(value: str, names: Mapping[str, str]) -> str:
    if len(value) >= ID_LETTERS_MIN:
        for key, name in names.items():
            if key.startswith(value):
                return name
    return value if value.isprintable() else repr(value)


def _mesh(old: View, new: View, at: float) -> Iterator[StoryRow]:
    before, now = (cast(MeshRow, one.table("mesh")["mesh"]) for one in (old, new))
    if before.mode != now.mode:
        count = sum(now.states.get(one, 0) for one in ("alive", "suspect", "dead"))
        because = f"of {count} members, by the charter's topology"
        yield StoryRow(at=at, kind="mesh", text=f"the mesh is {now.mode} now", because=because)
    for warning in now.warnings:
        if warning not in before.warnings:
            yield StoryRow(at=at, kind="mesh", text=warning, tone="doubt")
    for warning in before.warnings:
        if warning not in now.warnings:
            yield StoryRow(at=at, kind="mesh", text=f"no more: {warning}", tone="good")


def _members(old: View, new: View, at: float) -> Iterator[StoryRow]:
    before, now = old.table("members"), new.table("members")
    for key, row in now.items():
        one, was = cast(MemberRow, row), cast(MemberRow | None, before.get(key))
        if was is None:
            where = f" in {one.region}" if one.region else ""
            tone = _TONES.get(one.state, "")
            yield StoryRow(at=at, kind="member", text=f"{one.name}{where} {_STATES[one.state]}", tone=tone)
        else:
            yield from _member(was, one, at)
    for key, row in before.items():
        if key not in now:
            yield StoryRow(at=at, kind="member", text=f"{cast(MemberRow, row).name} is in no more")


def _member(was: MemberRow, one: MemberRow, at: float) -> Iterator[StoryRow]:
    if was.name != one.name:
        yield StoryRow(at=at, kind="member", text=f"{was.name} is called {one.name} now")
    if was.state != one.state:
        text, tone = f"{one.name} {_STATES.get(one.state, one.state)}", _TONES.get(one.state, "")
        yield StoryRow(at=at, kind="member", text=text, because=one.because, tone=tone)
    if was.hub != one.hub:
        where = f" of {one.region}" if one.region else ""
        said = {
            "hub": f"is the hub{where}",
            "standby": f"stands by as a hub{where}",
            "": "is no hub any more",
        }
        because = f"reported {one.reported}" if one.reported else ""
        yield StoryRow(at=at, kind="hub", text=f"{one.name} {said[one.hub]}", because=because)
    if (was.path, was.via) != (one.path, one.via) and one.path and one.state == "alive":
        text = f"{one.name} is reached {_way(one)}"
        because = f"it was {_way(was)}" if was.path else ""
        tone = "doubt" if one.path in ("none", "link") else ""
        yield StoryRow(at=at, kind="path", text=text, because=because, tone=tone)
    if was.agreement != one.agreement and one.agreement in _AGREEMENT:
        because = f"they differ in {', '.join(one.differs)}" if one.differs else ""
        tone = "good" if one.agreement == "agrees" else "doubt"
        # A difference that was news on its way, and is over, is no story.
        if was.agreement != "travels" or one.agreement != "agrees":
            text = f"{one.name} {_AGREEMENT[one.agreement]}"
            yield StoryRow(at=at, kind="agreement", text=text, because=because, tone=tone)
    if was.work != one.work and was.work and one.work in _WORK:
        yield StoryRow(at=at, kind="work", text=f"{one.name} {_WORK[one.work]}")


def _way(one: MemberRow) -> str:
    match one.path:
        case "hub" | "relay" | "link" if one.via:
            return (
                f"by {'its control link over ' if one.path == 'link' else 'the ' + one.path + ' '}{one.via}"
            )
        case "link":
            return "by its control link alone"
        case "none":
            return "by nothing"
        case _:
            return "directly" if one.path == "direct" else f"by a {one.path}"


def _jobs(old: View, new: View, at: float) -> Iterator[StoryRow]:
    before = old.table("jobs")
    for key, row in new.table("jobs").items():
        one, was = cast(JobRow, row), cast(JobRow | None, before.get(key))
        if was is None:
            if not (_is_recent(one.submitted, at) or _is_recent(one.finished, at)):
                continue
            tasks = "1 task" if one.total == 1 else f"{one.total:,} tasks"
            text = f"job {one.name} ({key[:8]}) of {tasks} is {one.state}"
            yield StoryRow(at=at, kind="job", text=text, tone=_ENDS.get(one.state, ""))
        elif was.state != one.state:
            because = f"{one.failed:,} of {one.total:,} tasks failed" if one.failed else ""
            text, tone = f"job {one.name} ({key[:8]}) is {one.state}", _ENDS.get(one.state, "")
            yield StoryRow(at=at, kind="job", text=text, because=because, tone=tone)
        if was is not None and was.owner != one.owner:
            because = f"{was.owner} was gone, and its replicas follow {one.owner}"
            yield StoryRow(
                at=at,
                kind="job",
                text=f"job {one.name} ({key[:8]}) is owned by {one.owner} now",
                because=because,
            )


def _is_recent(stamp: str, at: float) -> bool:
    """Says whether a time is about now; others wrote it, so it may be none."""
    try:
        return bool(stamp) and abs(at - unix_s(stamp)) <= NEWS_S
    except PeerFault:
        return False
