"""Judges this node's place in the mesh: links, clock, certificate, agreement, and how its agent feels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshpeer.app.spans import seconds
from meshpeer.app.words import few
from meshpeer.core.records.bounds import AHEAD_MAX_S
from meshpeer.runtime.doctor import BAD, OK, UNKNOWN, WARNING, Finding

CLOCK_OFF_S = 30.0
"""A clock that is off by more is worth a word; beyond ``AHEAD_MAX_S`` records are refused."""
ENDS_SOON_S = 14 * 86_400.0
LAG_S = 0.5
"""A lag of the event loop that others notice: pings wait that long."""
HEALTH_LOW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A node among the others."""

    linked: int
    others: int
    """Other members, gone or not."""
    dead: tuple[str, ...]
    refused_by: Mapping[str, str]
    """Name -> why, of members that would not have this node and to whom it has no link."""
    durable: bool
    ends_in_s: float | None
    """Until the certificate's end; None where there is none."""
    why_provisional: str = ""
    only_issuer: bool = False
    differ: tuple[str, ...] = ()
    """Who lastingly derives its plan from other facts, in sentences."""
    agree: int = 0
    shut_out: tuple[str, ...] = ()
    contradicting: tuple[str, ...] = ()
    """Whose state folder may be in use twice."""
    overreaching: Mapping[str, str] = field(default_factory=dict)
    """Name -> what its record claims to be and its certificate does not allow."""
    revoked: str = ""
    """By whom, when and why this node was shut out; empty where it was not."""


def judge_clock(ahead_s: Mapping[str, float]) -> list[Finding]:
    """Is this machine's clock right? ``ahead_s``: by how many seconds each linked member's is ahead."""
    if not ahead_s:
        return [_finding("clock", UNKNOWN, "no linked member to compare the clock with")]
    middle = statistics.median(ahead_s.values())
    todo = "timedatectl shows whether it is kept; timedatectl set-ntp true keeps it"
    if abs(middle) > CLOCK_OFF_S:
        side = "behind" if middle > 0 else "ahead of"
        whose = few(sorted(ahead_s)) if len(ahead_s) <= 2 else f"most of {len(ahead_s)} members"
        text = f"the clock is {seconds(abs(middle))} {side} that of {whose}"
        level = BAD if abs(middle) > AHEAD_MAX_S else WARNING
        return [_finding("clock", level, text, todo if len(ahead_s) > 1 else f"on one of the two: {todo}")]
    off = {name: one for name, one in sorted(ahead_s.items()) if abs(one - middle) > CLOCK_OFF_S}
    if off:
        name, one = max(off.items(), key=lambda pair: abs(pair[1]))
        side = "ahead of" if one > 0 else "behind"
        text = f"the clock of {few([*off])} is off: {name}'s is {seconds(abs(one))} {side} this one's"
        return [_finding("clock", WARNING, text, f"on {name}: {todo}")]
    return [_finding("clock", OK, f"the clock is right, by those of {_count(len(ahead_s), 'linked member')}")]


def judge_standing(seen: Standing) -> list[Finding]:
    """Does the mesh have this node, and does this node have the mesh?"""
    if seen.revoked:
        todo = "to be back it joins anew: meshpeer leave, then meshpeer join INVITE"
        return [_finding("revoked", BAD, seen.revoked, todo)]
    found = [_links(seen), *_certificate(seen)]
    found += [
        _finding(
            "refused",
            WARNING,
            f"{name} refuses this node: {reason}",
            "the clock and the invite are the usual reasons: timedatectl; meshpeer status -v",
        )
        for name, reason in sorted(seen.refused_by.items())
    ]
    if seen.differ:
        todo = "a difference that lasts: meshpeer peers and meshpeer charter show, there and here"
        found += [_finding("agreement", WARNING, one.partition(":")[0], todo) for one in seen.differ]
    elif seen.others:
        text = f"{seen.agree} of {seen.others + 1} derive their plans from the same facts"
        found.append(_finding("agreement", OK, text))
    if seen.only_issuer:
        text = "this node is the only issuer: if it is lost, nobody can join any more"
        found.append(_finding("issuer", WARNING, text, "make another one: `meshpeer issuer add NODE`"))
    for name, claims in sorted(seen.overreaching.items()):
        text = f"{name} says that it is {claims}, which its certificate does not allow: nobody believes it"
        todo = "was its invite meant to allow that? Else what runs there is not meshpeer alone"
        found.append(_finding("capabilities", WARNING, text, todo))
    if seen.contradicting:
        text = f"{few(seen.contradicting)}: is a copy of the state folder in use on another machine?"
        found.append(_finding("copies", BAD, text, "stop one of the two, and let it join anew"))
    if seen.shut_out:
        text = f"{few(seen.shut_out)} sent what is forged, and is shut out for a while"
        found.append(_finding("shut_out", WARNING, text, "what runs there? If in doubt, leave it out"))
    return found


def judge_agent(lag_s: float, health: int) -> list[Finding]:
    """Does the agent keep up? ``lag_s`` of its event loop, ``health`` 0 (well) to 7."""
    if lag_s < LAG_S and health < HEALTH_LOW:
        return [_finding("agent", OK, f"the agent keeps up (lag {lag_s * 1000:.0f} ms, health {health})")]
    text = f"the agent is late ({seconds(lag_s)}; health {health} of 7, 0 is well): others may suspect it"
    todo = "is the machine overloaded? Fewer slots leave room: slots under [jobs]"
    return [_finding("agent", WARNING, text, todo)]


def _links(seen: Standing) -> Finding:
    if not seen.others:
        return _finding("links", OK, "no other member yet", "meshpeer invite")
    if not seen.linked:
        text = f"none of {_count(seen.others, 'other member')} is linked: this node is alone"
        todo = "is this machine's network up (ip -brief address)? Do the others run?"
        more = 'a node that moved: seeds = ["HOST:51821"] under [mesh], then meshpeer stop and up'
        return _finding("links", BAD, text, todo, more)
    text = f"{seen.linked} of {_count(seen.others, 'other member')} linked"
    if seen.dead:
        todo = f"on {seen.dead[0]}: meshpeer up --detach, or meshpeer doctor"
        return _finding("links", WARNING, f"{text}; {few(seen.dead)} can't be reached", todo)
    return _finding("links", OK, text)


def _certificate(seen: Standing) -> list[Finding]:
    if seen.ends_in_s is None:
        text, todo = "no certificate admits this node", "meshpeer join INVITE, with a new invite"
        return [_finding("certificate", BAD, text, todo)]
    ends = seconds(max(0.0, seen.ends_in_s))
    if not seen.durable:
        why = seen.why_provisional or "no issuer has admitted it yet"
        text = f"this node is provisional: {why}; that ends in {ends}"
        return [_finding("certificate", WARNING, text, "start an issuer (the founder): meshpeer up --detach")]
    if seen.ends_in_s < ENDS_SOON_S:
        text = f"this node's certificate ends in {ends}"
        return [_finding("certificate", WARNING, text, "join anew with a new invite before that")]
    return [_finding("certificate", OK, f"this node is admitted for {ends}")]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _finding(check: str, level: str, text: str, *todo: str) -> Finding:
    group = "clock" if check == "clock" else "membership"
    return Finding(group=group, check=check, level=level, text=text, todo=todo)
