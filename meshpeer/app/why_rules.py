"""Puts the reasons of a path in words, one sentence each, with a code for programs. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from meshpeer.app.spans import seconds
from meshpeer.core.ids import NodeId
from meshpeer.core.node.why import (
    LinkReason,
    NoTunnelsReason,
    Reason,
    RelayReason,
    StateReason,
    StayReason,
)
from meshpeer.core.topology.mode import FULL, FULL_UP_TO, REGIONAL_FROM, ModeRule
from meshpeer.core.topology.moves import Stay, Waits
from meshpeer.core.topology.plan import REGION_FULL_MAX, PairRule
from meshpeer.core.topology.reasons import (
    CarriedReason,
    Criterion,
    HubReason,
    IsHubReason,
    ModeReason,
    PairReason,
    PassedOverReason,
)
from meshpeer.runtime.control import WhyRule

NameOf = Callable[[NodeId], str]


def rule_view(reason: Reason, *, name_of: NameOf, me: NodeId, now_unix_s: float) -> WhyRule:
    """Returns one reason as the document has it."""
    match reason:
        case ModeReason():
            return WhyRule(code=f"mode_{_code(reason.rule.value)}", text=_mode(reason))
        case PairReason():
            return WhyRule(code=f"pair_{reason.rule.value}", text=_pair(reason))
        case HubReason():
            return WhyRule(code=f"hub_{reason.criterion.value}", text=_hub(reason))
        case CarriedReason():
            text = (
                f"in {_region(reason.region)} nobody is fit to be a hub, "
                f"so the hubs of {_region(reason.by)} carry it, the nearest by what members say"
            )
            return WhyRule(code="region_carried", text=text)
        case PassedOverReason():
            name, region = reason.member.name, _region(reason.region)
            why = "it has not all its tunnels yet"
            if reason.reported:
                why = "those that depend on it report that it carries nothing"
            if reason.gone:
                why = "its observers say that it is gone"
            text = f"{name} would be the hub of {region}, but {why}"
            return WhyRule(code="hub_passed_over", text=text)
        case IsHubReason():
            then = ", so it needs none on its own side" if reason.needs_other else ""
            return WhyRule(
                code="is_hub", text=f"{reason.hub.name} is a hub of {_region(reason.region)}{then}"
            )
        case NoTunnelsReason():
            name = name_of(reason.node)
            if reason.key_taken:
                text = f"{name} shows the WireGuard key of a member that was admitted before it"
                return WhyRule(code="key_taken", text=text)
            text = f"{name} runs without a WireGuard interface (backend none)"
            return WhyRule(code="no_interface", text=text)
        case StayReason():
            code = "stays_by_hubs" if reason.stay.direct else "stays_direct"
            return WhyRule(code=code, text=_stay(name_of(reason.node), reason.stay, reason.idle_s))
        case RelayReason():
            code = "relayed" if reason.relay else "relay_asked" if reason.asked else "relay_wanted"
            return WhyRule(code=code, text=_relay(reason, name_of, me))
        case LinkReason():
            return WhyRule(
                code="link_forwarded" if reason.carrier is None else "link_carried",
                text=_link(reason, name_of),
            )
        case StateReason():
            return WhyRule(
                code=f"member_{reason.opinion.state.value}", text=_state(reason, name_of, me, now_unix_s)
            )
        case _:
            assert_never(reason)


def _mode(reason: ModeReason) -> str:
    if reason.rule is ModeRule.CHOSEN:
        return f"the charter says topology {reason.topology}"
    if reason.rule is ModeRule.NO_HUB:
        return "nobody is fit to be a hub, so the mesh is full"
    auto, count = "topology is auto", f"with {reason.members} members"
    if reason.rule is ModeRule.LARGE:
        return f"{auto}, and {count} the mesh is regional: it is from {REGIONAL_FROM} on"
    if reason.rule is ModeRule.SMALL:
        return f"{auto}, and {count} the mesh is full: it is up to {FULL_UP_TO}"
    return (
        f"{auto}, and {count} the mesh stays as it is, {reason.mode}: it goes full at {FULL_UP_TO}, "
        f"regional at {REGIONAL_FROM}"
    )


def _pair(reason: PairReason) -> str:
    one, other = reason.one, reason.other
    same = one.region == other.region
    match reason.rule:
        case PairRule.FULL:
            return f"in a {FULL} mesh every two members have a tunnel of their own"
        case PairRule.REGION:
            return (
                f"both are in {_region(one.region)}: in a region of up to {REGION_FULL_MAX} members "
                f"(it has {reason.size}) every two have a tunnel"
            )
        case PairRule.HUBS:
            return "both are hubs, and every two hubs have a tunnel"
        case PairRule.SERVED:
            return "one of the two is the other's hub"
        case PairRule.STANDBY:
            return "one of the two stands by to be the other's hub"
        case PairRule.APART if same:
            return (
                f"both are in {_region(one.region)}, which has {reason.size} members: "
                f"in a region of more than {REGION_FULL_MAX} they reach each other by its hub"
            )
        case PairRule.APART:
            return (
                f"{one.name} is in {_region(one.region)}, {other.name} in {_region(other.region)}: "
                "members of different regions reach each other by hubs"
            )
        case _:
            assert_never(reason.rule)


def _hub(reason: HubReason) -> str:
    hub, over = reason.hub.name, reason.over.name if reason.over else ""
    because = {
        Criterion.ONLY: "nobody else there is fit",
        Criterion.SOUND: f"those that depend on {over} report that it carries nothing",
        Criterion.PREFERRED: f"its settings ask for that (hub = prefer), those of {over} do not",
        Criterion.PUBLIC: f"it has an endpoint that can be reached from anywhere, {over} names none",
        Criterion.WARM: f"it has the tunnels of a hub, {over} has them not yet",
        Criterion.DRAWN: f"{over} is as fit, and the hash drew {hub}",
    }[reason.criterion]
    of = f"the hub of {_region(reason.region)}"
    if reason.among > 1:
        drawn = f"the one drawn for {reason.edge.name}"
        of = f"one of {reason.among} hubs of {_region(reason.region)}, and {drawn}"
    standbys = ", ".join(one.name for one in reason.standbys)
    verb = "stands" if len(reason.standbys) == 1 else "stand"
    return f"{hub} is {of}: {because}" + (f"; {standbys} {verb} by" if standbys else "")


def _stay(name: str, stay: Stay, idle_s: int) -> str:
    if stay.direct:
        begin = f"the plan gives the pair with {name} a tunnel, but for now it goes on by hubs"
    else:
        begin = f"the plan sends the pair with {name} by hubs, but for now it keeps its own tunnel"
    return f"{begin}: {_waits(stay, idle_s)}"


def _waits(stay: Stay, idle_s: int) -> str:
    match stay.waits:
        case Waits.SETTLING:
            return "the plan changed a moment ago"
        case Waits.HUB:
            return "the tunnel to its hub does not work yet"
        case Waits.TUNNEL:
            return "the tunnel has had no handshake yet"
        case Waits.PAIR_OF_HUB:
            return "pairs of the hub go first"
        case Waits.TRAFFIC:
            ago = "a moment ago" if stay.idle_s is None else f"{seconds(stay.idle_s)} ago"
            return f"traffic went through it {ago}, and it moves after {idle_s} s without"
        case Waits.OTHER_END:
            return "this node is ready to move, the other has not agreed yet"
        case _:
            assert_never(stay.waits)


def _relay(reason: RelayReason, name_of: NameOf, me: NodeId) -> str:
    ends = f"{name_of(me)} and {name_of(reason.node)}"
    why = f"{ends} got no handshake directly"
    if reason.hopeless:
        why = (
            f"{ends} are both behind routers, and one of these gives every destination another port: "
            "they can't meet directly"
        )
    if reason.shut:
        names = ", ".join(name_of(one) for one in reason.shut)
        why = f"{why}; the ports that {names} would lend do not answer {name_of(me)} (UDP 51830-51929 there)"
    if reason.relay is not None:
        return f"{why}; {name_of(reason.relay)} passes on what they encrypt, and can't read it"
    if reason.asked is not None:
        return f"{why}; {name_of(reason.asked)} is asked to relay, and both ends have to ask it"
    if not reason.lenders:
        return (
            f"{why}, and no member that could relay them has capability relay, accepts that, and is reachable"
        )
    return f"{why}, and no relay took them so far; they ask again"


def _link(reason: LinkReason, name_of: NameOf) -> str:
    name = name_of(reason.node)
    if reason.carrier is None:
        return f"the control link to {name} goes through a forwarded port (via = ssh)"
    over = name_of(reason.carrier)
    return f"the control link to {name} goes over {over}, sealed for {name}: neither end can dial the other"


def _state(reason: StateReason, name_of: NameOf, me: NodeId, now_unix_s: float) -> str:
    opinion, name = reason.opinion, name_of(reason.node)
    since = f" for {seconds(max(0.0, now_unix_s - opinion.since_unix_s))}" if opinion.since_unix_s else ""
    others = ", ".join(name_of(one) for one in opinion.observers if one != me)
    said = f"; suspected by {others}" if others else ""
    return (
        f"{name} has been {opinion.state.value}{since}, as {name_of(me)} sees it: {opinion.because}{said}. "
        "Its tunnels stay all the same"
    )


def _region(name: str) -> str:
    return name or "the region without a name"


def _code(text: str) -> str:
    return text.replace(" ", "_")
