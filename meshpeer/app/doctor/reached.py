"""Judges whether others reach this node's control port: by what members said that tried it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshpeer.app.reach import local_only
from meshpeer.app.words import few
from meshpeer.core.membership.dialbacks import Outcome, Try
from meshpeer.runtime.doctor import BAD, OK, UNKNOWN, WARNING, Finding

_SAYS = {
    Outcome.REFUSED.value: "refused",
    Outcome.SILENT.value: "no answer",
    Outcome.STRANGER.value: "another machine answers",
}


def judge_reached(
    asked: Sequence[str],
    heard: Mapping[str, Sequence[Try]],
    port: int,
    *,
    endpoint: str = "",
    is_seed: bool = False,
) -> list[Finding]:
    """Is TCP ``port`` reached from elsewhere? ``endpoint`` is what this node's owner named (``host:port``),
    ``is_seed``: its address stands in invites. Of others nothing depends on it."""
    if not asked:
        return [
            _finding(UNKNOWN, f"whether TCP {port} is reached from elsewhere: no linked member could try")
        ]
    tried = {name: [one for one in tries if one.outcome in _KNOWN] for name, tries in heard.items()}
    tried = {name: tries for name, tries in tried.items() if tries}
    if not tried:
        busy = any(one.outcome == Outcome.BUSY for tries in heard.values() for one in tries)
        why = "they were asked too often: try again in a minute" if busy else "they did not say"
        text = f"whether TCP {port} is reached from elsewhere: {few(sorted(asked))} could not tell; {why}"
        return [_finding(UNKNOWN, text)]
    reached = [
        (name, one.endpoint)
        for name, tries in sorted(tried.items())
        for one in tries
        if one.outcome == Outcome.REACHED
    ]
    found: list[Finding] = []
    if reached:
        name, where = reached[0]
        local = " (local)" if local_only(one for _, one in reached) else ""
        found.append(_finding(OK, f"{name} reaches TCP {port} at {where}{local}"))
    missed = {name: one for name, tries in sorted(tried.items()) for one in tries if one.endpoint == endpoint}
    missed = {name: one for name, one in missed.items() if one.outcome != Outcome.REACHED}
    if reached and missed and not any(where == endpoint for _, where in reached):
        name, one = next(iter(missed.items()))
        text = f"the endpoint that was named, {endpoint}, is not reached by {name}: {_SAYS[one.outcome]}"
        found.append(_finding(WARNING, text, *_todo(port)))
    if not reached:
        needed = is_seed or bool(endpoint)
        text = f"{few(sorted(tried))} can't reach TCP {port} here: {_tries(tried)}"
        if needed:
            found.append(_finding(BAD, f"{text}. Nobody can join by this node", *_todo(port)))
        else:
            found.append(_finding(OK, f"{text}; only seeds need that"))
    return found


_KNOWN = {Outcome.REACHED.value, *_SAYS}


def _tries(tried: Mapping[str, Sequence[Try]]) -> str:
    said = {one.endpoint: _SAYS[one.outcome] for tries in tried.values() for one in tries}
    return few([f"{endpoint} {outcome}" for endpoint, outcome in said.items()])


def _todo(port: int) -> tuple[str, ...]:
    return (
        f"open TCP {port} here (ufw allow {port}/tcp), in a cloud its security group; behind a router "
        "forward it",
    )


def _finding(level: str, text: str, *todo: str) -> Finding:
    return Finding(group="reachable", check="control", level=level, text=text, todo=todo)
