"""Turns an explanation into the document of the control API: the answer in a sentence, then why, what was
tried, what is not known here, what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from meshpeer.app.spans import seconds
from meshpeer.app.why_rules import rule_view
from meshpeer.core.ids import NodeId
from meshpeer.core.node.looks import Tried, TunnelLook
from meshpeer.core.node.why import Advice, Explanation, NoTunnelsReason, RelayReason, Verdict
from meshpeer.core.paths.path_mtus import MtuLook
from meshpeer.core.topology.reasons import HubReason, IsHubReason
from meshpeer.runtime.control import Why, WhyCandidate, WhyTunnel, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What it takes to put an explanation in words."""

    me: NodeId
    name_of: Callable[[NodeId], str]
    port_of: Callable[[NodeId], int]
    """A member's WireGuard port."""
    now_unix_s: float
    mtu_of: Callable[[NodeId], MtuLook | None] = lambda who: None
    """What is known of the path of this node's tunnel to a member."""


def why_view(found: Explanation, words: Words) -> Why:
    name_of = words.name_of
    return Why(
        source=name_of(found.source),
        target=name_of(found.target),
        verdict=found.verdict.value,
        answer=_answer(found, words),
        path=tuple(name_of(node) for node in found.path),
        rule=tuple(
            rule_view(one, name_of=name_of, me=words.me, now_unix_s=words.now_unix_s) for one in found.reasons
        ),
        tunnels=tuple(_tunnel(one, words) for one in found.looks),
        candidates=tuple(
            _candidate(one, name_of(look.node)) for look in found.looks for one in look.candidates
        ),
        unknown=_unknown(found, words),
        todo=_todo(found, words),
    )


# --- the answer ---------------------------------------------------------------------------------------------


def _answer(found: Explanation, words: Words) -> str:
    source, target = words.name_of(found.source), words.name_of(found.target)
    match found.verdict:
        case Verdict.DIRECT:
            endpoint = found.looks[0].endpoint
            seen = "direct" if found.source == words.me else f"from {words.name_of(words.me)}"
            to = f", {seen} to {endpoint}" if endpoint else ""
            return f"{source} and {target} have a tunnel of their own{to}"
        case Verdict.RELAY:
            relay = next(one.relay for one in found.reasons if isinstance(one, RelayReason) and one.relay)
            endpoint = found.looks[0].endpoint
            return (
                f"{source} and {target} have a tunnel of their own by the relay {words.name_of(relay)}, "
                f"from {words.name_of(words.me)} to {endpoint}"
            )
        case Verdict.HUBS:
            verb = "goes to" if found.unknown else "reaches"
            return f"{source} {verb} {target} by hubs: {_route(found, words)}"
        case Verdict.PLANNED if len(found.path) == 2:
            return f"by the plan {source} and {target} have a tunnel of their own"
        case Verdict.PLANNED:
            return f"by the plan {source} goes to {target} by hubs: {_route(found, words)}"
        case Verdict.LINK:
            return f"{source} reaches {target} by a control link only: {_failing(found, words)}"
        case Verdict.NONE:
            return f"{source} does not reach {target}: {_failing(found, words)}"


def _route(found: Explanation, words: Words) -> str:
    regions = {one.hub.node: one.region for one in found.reasons if isinstance(one, HubReason | IsHubReason)}
    return " -> ".join(
        words.name_of(node)
        + (f" (hub of {regions[node]})" if regions.get(node) and 0 < place < len(found.path) - 1 else "")
        for place, node in enumerate(found.path)
    )


def _failing(found: Explanation, words: Words) -> str:
    without = [words.name_of(one.node) for one in found.reasons if isinstance(one, NoTunnelsReason)]
    if without:
        return f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no tunnels"
    if found.broken is None:
        return "the plans lead no further than " + words.name_of(found.path[-1])
    look = next((one for one in found.looks if one.node == found.broken), None)
    tunnel = f"the tunnel of {words.name_of(words.me)} and {words.name_of(found.broken)}"
    if len(found.path) > 2:
        tunnel = f"on the way {_route(found, words)} {tunnel}"
    if look is not None and look.apart:
        return f"{tunnel} has no way: one has no IPv4, the other no IPv6"
    if look is not None and look.silent_since_unix_s is not None and look.endpoint:
        since = rfc3339(look.silent_since_unix_s)
        at = f"{since[:10]} {since[11:19]} UTC"
        if not look.handshake_unix_s:
            return f"{tunnel} has never had a handshake, no UDP answered yet, asked since {at}"
        return f"{tunnel} carries nothing: no UDP answered since {at}"
    if look is not None and look.mute:
        return f"{tunnel} answers nothing, and other endpoints are tried"
    if look is None or not look.handshake_unix_s:
        return f"{tunnel} has never had a handshake"
    ago = seconds(max(0.0, words.now_unix_s - look.handshake_unix_s))
    return f"{tunnel} has had no handshake for {ago}"


# --- what was tried -----------------------------------------------------------------------------------------


def _tunnel(look: TunnelLook, words: Words) -> WhyTunnel:
    ago = max(0.0, words.now_unix_s - look.handshake_unix_s) if look.handshake_unix_s else None
    width = words.mtu_of(look.node)
    return WhyTunnel(
        to=words.name_of(look.node),
        works=look.works,
        endpoint=look.endpoint or "",
        last_handshake_s=None if ago is None else round(ago, 1),
        mtu=width.mtu if width else 0,
        underlay_bytes=width.underlay_bytes if width else None,
    )


def _candidate(one: Tried, tunnel: str) -> WhyCandidate:
    return WhyCandidate(
        tunnel=tunnel,
        endpoint=one.endpoint,
        source="seen" if one.source is None else one.source.name.lower(),
        state=one.state.value,
        since=None if one.since_unix_s is None else rfc3339(one.since_unix_s),
        handshake=None if one.handshake_unix_s is None else rfc3339(one.handshake_unix_s),
        known_since=None if one.known_unix_s is None else rfc3339(one.known_unix_s),
    )


# --- what is not known, what to do --------------------------------------------------------------------------


def _unknown(found: Explanation, words: Words) -> tuple[str, ...]:
    source, target = words.name_of(found.source), words.name_of(found.target)
    said: list[str] = []
    if found.foreign:
        said.append(
            f"whether that works, what {source} tried, and whether it keeps the pair elsewhere for now: "
            f"run `meshpeer why {target}` on {source}"
        )
    for one, other in found.unknown:
        if not (found.foreign and found.source in (one, other)):
            said.append(
                f"whether the tunnel of {words.name_of(one)} and {words.name_of(other)} works: "
                f"run `meshpeer why {words.name_of(other)}` on {words.name_of(one)}"
            )
    return tuple(said)


def _todo(found: Explanation, words: Words) -> tuple[str, ...]:
    without = [one for one in found.reasons if isinstance(one, NoTunnelsReason)]
    if without:
        return tuple(
            f"give {words.name_of(one.node)} a tunnel: start its agent as root, without `--backend none`"
            if not one.key_taken
            else f"let {words.name_of(one.node)} join anew with a state folder of its own"
            for one in without
        )
    if found.broken is None or found.advice is None:
        return ()
    me, peer = words.name_of(words.me), words.name_of(found.broken)
    match found.advice:
        case Advice.START:
            return (
                f"see whether {peer} runs and has a network; its agent starts with `meshpeer up --detach`",
            )
        case Advice.INTERFACE:
            return (f"see `meshpeer status` on {me}: its interface does not hold the tunnel to {peer} yet",)
        case Advice.AWAIT_PEER:
            return (f"wait a few seconds: {peer} has not said yet that its interface knows {me}",)
        case Advice.AWAIT_TRY:
            return ("ask again in a few seconds: the first endpoint has not had its time yet",)
        case Advice.NAME_ENDPOINT:
            return (
                f"{me} knows no address of {peer} to try: name one where {peer} is founded or joins, "
                "with --endpoint HOST[:PORT]",
            )
        case Advice.OTHER_FAMILY:
            return (
                f"give {me} or {peer} an address of the family that the other has: between IPv4 alone "
                "and IPv6 alone no tunnel can be direct",
            )
        case Advice.PING:
            return (f"`meshpeer ping {peer}`: without keepalives an idle tunnel makes no handshakes",)
        case Advice.OPEN_PORT:
            there, here = words.port_of(found.broken), words.port_of(words.me)
            mine = f"on {me}" if here == there else f"UDP {here} on {me}"
            relay = any(isinstance(one, RelayReason) and not one.lenders for one in found.reasons)
            return (
                f"open UDP {there} on {peer} or {mine}: one of the two must let the other's packets in"
                + (", or let a member relay them that both reach (UDP 51830-51929 there)" if relay else ""),
                f"see whether packets arrive on {peer}: `tcpdump -ni any udp port {there}` there, "
                f"while {me} runs `meshpeer ping {peer}`",
            )
        case _:
            assert_never(found.advice)
