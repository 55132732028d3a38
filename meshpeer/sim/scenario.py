"""Scenario files: what a simulated mesh is like, what befalls it, and what is expected of it.

TOML, checked whole before anything runs: every error names file, key and what is allowed. Times are seconds
of
virtual time; those of events count from the moment at which the last host of the first boot was started.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meshpeer.core.errors import LocalFault
from meshpeer.core.wire.limits import MEMBERS_MAX
from meshpeer.core.wire.unreadable import UNREADABLE

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Loss = Annotated[float, msgspec.Meta(ge=0.0, le=0.5)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=40 * 86_400.0)]
Some = Annotated[float, msgspec.Meta(gt=0.0, le=40 * 86_400.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MEMBERS_MAX)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table whose keys are all known."""


class Region(_Table, frozen=True, kw_only=True):
    name: str
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    """Of the hosts; what regions leave over goes to the last."""
    latency_ms: tuple[Annotated[float, msgspec.Meta(gt=0.0, le=10_000.0)], ...]
    """One way, to every region in order, this one included."""


# --- events -------------------------------------------------------------------------------------------------


class _Event(_Table, tag_field="do", frozen=True, kw_only=True):
    at_s: Seconds


class Partition(_Event, tag="partition", frozen=True, kw_only=True):
    """Nothing gets through between groups for a while."""

    for_s: Some
    shares: tuple[Share, ...] = (0.5, 0.5)
    """Of the hosts, drawn at random."""
    regions: tuple[tuple[str, ...], ...] = ()
    """Groups as names of regions, instead of shares."""
    one_way: bool = False
    """Only what goes from an earlier group to a later one is lost."""


class Pause(_Event, tag="pause", frozen=True, kw_only=True):
    """Some hosts stop and go on, again and again (SIGSTOP, SIGCONT)."""

    count: Count
    on_s: Some
    """How long each stop lasts."""
    off_s: Some
    """How long they run in between."""
    for_s: Some


class Crash(_Event, tag="crash", frozen=True, kw_only=True):
    """Some hosts fail at once."""

    count: Count | None = None
    share: Share | None = None
    silent: bool = False
    """The machine goes: no connection is closed, nobody is refused."""
    wipe: bool = False
    """They come back without their journal."""
    restart_after_s: Some | None = None


class Churn(_Event, tag="churn", frozen=True, kw_only=True):
    """Hosts fail and come back after a while, one at a time."""

    per_minute: Annotated[float, msgspec.Meta(gt=0.0, le=10_000.0)]
    for_s: Some
    down_s: Some = 20.0
    silent: bool = False


class Change(_Event, tag="change", frozen=True, kw_only=True):
    """One host changes its record (it is renamed)."""


class Join(_Event, tag="join", frozen=True, kw_only=True):
    count: Count = 1


class Leave(_Event, tag="leave", frozen=True, kw_only=True):
    count: Count = 1


class Revoke(_Event, tag="revoke", frozen=True, kw_only=True):
    """The founder shuts some hosts out; they run on, and try to come back."""

    count: Count = 1


class Rogue(_Event, tag="rogue", frozen=True, kw_only=True):
    """A member in good standing runs a program of its own."""

    kind: Literal["forged", "counters", "equivocation", "replay", "identities", "big-frames", "slow"]
    for_s: Some = 30.0
    per_s: Annotated[float, msgspec.Meta(gt=0.0, le=10_000.0)] = 10.0
    """Messages a second to every host that it has a link to."""
    uses: Count = 1
    """Of the invite whose key it has, for ``identities``."""


Event = Partition | Pause | Crash | Churn | Change | Join | Leave | Revoke | Rogue


# --- what must come of it -----------------------------------------------------------------------------------


class Expect(_Table, frozen=True, kw_only=True):
    """Each line can fail the run."""

    all_know_within_s: Some | None = None
    """After the last host was started."""
    dead_within_s: Some | None = None
    """After each crash, on every host that runs."""
    change_known_within_s: Some | None = None
    heal_within_s: Some | None = None
    """After each partition: ledgers agree, and nobody who runs is held dead."""
    revoked_within_s: Some | None = None
    """After each revocation, or the end of the partition that it fell into: nobody holds anything of a host
    that was shut out, nor has a link to it."""
    no_false_dead: bool = False
    """Nobody who runs, was not stopped and not cut off is held dead by anyone."""
    bytes_per_node_s_max: Annotated[float, msgspec.Meta(gt=0.0)] | None = None
    """Sent, from ``settle_s`` on, mean over all hosts."""
    links_max: Count | None = None
    agree_at_end: bool = True
    """In the end all hosts that can reach each other hold the same facts."""


class Sweep(_Table, frozen=True, kw_only=True):
    """The same scenario for many values of one setting."""

    over: Literal["size", "loss", "churn"]
    values: Annotated[tuple[float, ...], msgspec.Meta(min_length=2, max_length=100)]


class Scenario(_Table, frozen=True, kw_only=True):
    """One scenario file."""

    name: str = ""
    size: Annotated[int, msgspec.Meta(ge=2, le=MEMBERS_MAX)]
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    duration_s: Some = 30.0
    boot: Literal["cold", "warm"] = "cold"
    """``cold``: one founds, the others join through it. ``warm``: they have known each other for long."""
    boot_over_s: Seconds = 1.0
    """Within which the hosts of a cold boot are started."""
    settle_s: Seconds = 10.0
    """After this, traffic is counted: what a mesh costs once it stands."""
    interface: bool = False
    """Whether hosts have a WireGuard interface."""
    latency_ms: Annotated[float, msgspec.Meta(gt=0.0, le=10_000.0)] = 5.0
    """One way; where there are no regions."""
    regions: tuple[Region, ...] = ()
    jitter: Annotated[float, msgspec.Meta(ge=0.0, le=0.9)] = 0.2
    loss: Loss = 0.0
    nat_share: Share = 0.0
    """Of the hosts stand behind a NAT, each behind one of its own."""
    clock_skew_s: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 0.0
    """Clocks are off by up to this, either way."""
    events: tuple[Event, ...] = ()
    expect: Expect = Expect()
    sweep: Sweep | None = None


def load_scenario(path: Path, *, size: int | None = None) -> Scenario:
    """Reads a scenario file; ``size`` stands instead of the file's. Raises ``LocalFault``."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LocalFault(f"{path} can't be read: {reason}", "examples: docs/examples/sim") from error
    return parse_scenario(text, str(path), size=size)


def parse_scenario(text: str, source: str, *, size: int | None = None) -> Scenario:
    """Reads a scenario; ``source`` names it in errors. Raises ``LocalFault``."""
    try:
        plain = tomllib.loads(text)
    except UNREADABLE as error:
        raise LocalFault(f"{source}: {error}", "see https://toml.io for how TOML is written") from error
    if size is not None:
        plain["size"] = size
    try:
        scenario = msgspec.convert(plain, Scenario, strict=True)
    except msgspec.ValidationError as error:
        what, key = _split(str(error))
        raise LocalFault(f"{source}: {key}: {what}", _allowed(plain, key, what)) from error
    return _checked(scenario, source)


def _split(message: str) -> tuple[str, str]:
    """Takes the path out of an error: "... - at `$.events[0].at_s`"."""
    what, _, path = message.partition(" - at `")
    key = path.rstrip("`").removeprefix("$").lstrip(".") or "the file"
    return what[:1].lower() + what[1:].replace("`", "'"), key


_EVENTS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Partition, Pause, Crash, Churn, Change, Join, Leave, Revoke, Rogue)
}


def _allowed(plain: dict[str, object], key: str, what: str) -> str:
    """Returns what may stand where the error is."""
    table: type[msgspec.Struct] = Scenario
    if key.startswith("events["):
        events, number = plain.get("events"), key[7:].partition("]")[0]
        event = events[int(number)] if isinstance(events, list) and number.isdigit() else None
        kind = _EVENTS.get(str(event.get("do"))) if isinstance(event, dict) else None
        if kind is None:
            return f"do is one of {', '.join(_EVENTS)}"
        table = kind
    for name, kind in (("regions", Region), ("expect", Expect), ("sweep", Sweep)):
        table = kind if key.startswith(name) and (key != name or "object" in what) else table
    fields = msgspec.structs.fields(table)
    leaf = key.rpartition(".")[2]
    options = next((_options(one.type) for one in fields if one.encode_name == leaf), "")
    return options or f"keys allowed there: {', '.join(one.encode_name for one in fields)}"


def _options(kind: object) -> str:
    """Returns the words that a field takes, where it takes words."""
    words = getattr(kind, "__args__", ()) if getattr(kind, "__origin__", None) is Literal else ()
    return f"one of {', '.join(map(str, words))}" if words else ""


def _checked(scenario: Scenario, source: str) -> Scenario:
    """Raises ``LocalFault`` for what is well formed and makes no sense."""

    def refuse(key: str, what: str, hint: str) -> LocalFault:
        return LocalFault(f"{source}: {key}: {what}", hint)

    regions = [one.name for one in scenario.regions]
    if len(set(regions)) < len(regions):
        raise refuse("regions", "two regions have one name", "give each its own")
    if sum(one.share for one in scenario.regions) > 1.000_001:
        raise refuse("regions", "the shares add up to more than 1", "make them add up to 1")
    for number, region in enumerate(scenario.regions):
        if len(region.latency_ms) != len(regions):
            raise refuse(
                f"regions[{number}].latency_ms",
                f"has {len(region.latency_ms)} values for {len(regions)} regions",
                "give one way's latency to every region in the order of the file, its own included",
            )
    for number, event in enumerate(scenario.events):
        key = f"events[{number}]"
        if event.at_s > scenario.duration_s:
            raise refuse(
                f"{key}.at_s", f"is after the end at {scenario.duration_s:g}", "make duration_s longer"
            )
        if isinstance(event, Crash) and (event.count is None) is (event.share is None):
            raise refuse(key, "names not exactly one of count and share", "say how many, or which share")
        if isinstance(event, Crash) and event.wipe and event.restart_after_s is None:
            raise refuse(f"{key}.wipe", "is for hosts that come back", "add restart_after_s")
        if isinstance(event, Partition) and sum(event.shares) > 1.000_001:
            raise refuse(f"{key}.shares", "add up to more than 1", "make them add up to 1 or less")
        if isinstance(event, Partition):
            unknown = [name for group in event.regions for name in group if name not in regions]
            if unknown:
                known = ", ".join(regions) or "none: the file has no [[regions]]"
                raise refuse(f"{key}.regions", f"there is no region {unknown[0]!r}", f"regions: {known}")
        count = getattr(event, "count", None)
        if count is not None and not isinstance(event, Join) and count >= scenario.size:
            raise refuse(f"{key}.count", f"is all {scenario.size} hosts or more", "leave at least one")
    sweep = scenario.sweep
    if sweep is not None and sweep.over == "size" and any(one < 2 or one % 1 for one in sweep.values):
        raise refuse("sweep.values", "sizes are whole numbers from 2 on", "for example [10, 30, 100]")
    if sweep is not None and sweep.over == "loss" and any(not 0 <= one <= 0.5 for one in sweep.values):
        raise refuse("sweep.values", "losses go from 0 to 0.5", "for example [0, 0.01, 0.05]")
    if sweep is not None and sweep.over == "churn" and any(one < 0 for one in sweep.values):
        raise refuse("sweep.values", "churn is hosts a minute, from 0 on", "for example [0, 5, 20]")
    return scenario
