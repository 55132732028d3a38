"""Judges a machine's nftables rules: would they drop packets that the mesh needs?

Reads what ``nft --json list ruleset`` prints (libnftables-json(5)) and walks one packet through each base
chain of its hook. A ruleset can depend on what is not known here (sources, sets, marks, extensions of
iptables), so the answer has three values, and errs towards "may": certain is only what follows from ports,
protocol, interfaces and the state of the connection.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from meshpeer.core.wire.unreadable import UNREADABLE

RULESET_BYTES_MAX = 8 * 1024 * 1024
JUMPS_MAX = 16
"""The kernel's own bound (NFT_JUMP_STACK_SIZE)."""


class Fate(enum.Enum):
    """What becomes of a packet in a chain."""

    PASSES = "passes"
    MAY_DROP = "may drop"
    DROPS = "drops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet, of a connection in ``state``. None: not known."""

    hook: str
    """``input``, ``output`` or ``forward``."""
    protocol: str | None = None
    dport: int | None = None
    iifname: str | None = None
    oifname: str | None = None
    never_by: tuple[str, ...] = ("lo",)
    """Where it comes by or goes out is not known, but it is none of these."""
    state: str = "new"
    """What connection tracking says of it: ``new``, or ``established`` for what answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A base chain that is in a packet's way."""

    chain: str
    """``inet filter input``: family, table, name."""
    fate: Fate
    by_policy: bool
    """No rule names it: the chain drops whatever it does not accept."""


class RulesetUnreadable(ValueError):
    """What was printed is no ruleset."""


_Json = Mapping[str, object]
_Chain = tuple[str, str, str]


def judge_ruleset(text: bytes, packet: Packet, *, own: str = "") -> list[Verdict]:
    """Returns the base chains that drop the packet, or may, in their order; ``own`` is a table to pass over.

    Raises ``RulesetUnreadable``."""
    chains, rules = _read(text)
    found: list[Verdict] = []
    for key, chain in chains.items():
        if chain.get("hook") != packet.hook or chain.get("type", "filter") != "filter" or key[1] == own:
            continue
        if key[0] not in ("inet", "ip", "ip6"):
            continue
        fate, by_policy = _judge_base(key, chain, rules, packet)
        if fate is not Fate.PASSES:
            found.append(Verdict(chain=" ".join(key), fate=fate, by_policy=by_policy))
    return found


def _read(text: bytes) -> tuple[dict[_Chain, _Json], dict[_Chain, list[_Json]]]:
    if len(text) > RULESET_BYTES_MAX:
        raise RulesetUnreadable("the ruleset is too large")
    try:
        document = msgspec.json.decode(text)
    except UNREADABLE as error:
        raise RulesetUnreadable(str(error)) from error
    items = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise RulesetUnreadable("it has no list `nftables`")
    chains: dict[_Chain, _Json] = {}
    rules: dict[_Chain, list[_Json]] = {}
    for item in items:
        if not isinstance(item, dict):
            continue
        chain, rule = item.get("chain"), item.get("rule")
        if isinstance(chain, dict):
            chains[_key(chain, "name")] = chain
        elif isinstance(rule, dict):
            rules.setdefault(_key(rule, "chain"), []).append(rule)
    return chains, rules


def _key(item: _Json, name: str) -> _Chain:
    return str(item.get("family", "")), str(item.get("table", "")), str(item.get(name, ""))


# --- one packet through one chain ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Walk:
    """What may have happened so far, where it was not certain."""

    may_pass: bool = False
    may_drop: bool = False
    ends: dict[_Chain, str | None] = field(default_factory=dict)
    """How chains end that were walked before: the packet is the same, and one that many jump to is walked
    once."""


def _judge_base(
    key: _Chain, chain: _Json, rules: dict[_Chain, list[_Json]], packet: Packet
) -> tuple[Fate, bool]:
    walk = _Walk()
    end = _walk(key, rules, packet, walk, 0)
    by_policy = end is None
    drops = end == "drop" or (by_policy and chain.get("policy") == "drop")
    if drops:
        # Where rules that can't be judged may accept it first, nobody can tell.
        return (Fate.MAY_DROP if walk.may_pass else Fate.DROPS), by_policy
    return (Fate.MAY_DROP if walk.may_drop else Fate.PASSES), False


def _walk(
    key: _Chain, rules: dict[_Chain, list[_Json]], packet: Packet, walk: _Walk, depth: int
) -> str | None:
    """Returns ``accept`` or ``drop`` where that is certain, else None: the packet goes on."""
    for rule in rules.get(key, ()):
        expressions = rule.get("expr")
        end = _apply(expressions if isinstance(expressions, list) else [], key, rules, packet, walk, depth)
        if end == "return":
            return None
        if end is not None:
            return end
    return None


def _apply(
    expressions: Sequence[object],
    key: _Chain,
    rules: dict[_Chain, list[_Json]],
    packet: Packet,
    walk: _Walk,
    depth: int,
) -> str | None:
    certain = True
    for expression in expressions:
        if not isinstance(expression, dict) or not expression:
            certain = False
            continue
        ((kind, body), *_) = expression.items()
        if kind == "match":
            matches = _matches(body, packet)
            if matches is False:
                return None
            certain = certain and matches is True
        elif kind in ("accept", "drop", "reject", "return"):
            return _end(kind, certain, walk)
        elif kind in ("jump", "goto"):
            end = _jump(kind, body, certain, key, rules, packet, walk, depth)
            if end is not None:
                return end
        elif kind == "vmap":
            end = _map(body, certain, packet, walk)
            if end is not None:
                return end
        elif kind not in ("counter", "log", "comment"):
            certain = False
    return None


def _end(kind: str, certain: bool, walk: _Walk) -> str | None:
    if kind == "return":
        # Where it is not certain, what follows may not be reached.
        walk.may_pass = walk.may_pass or not certain
        return "return" if certain else None
    drops = kind != "accept"
    if not certain:
        walk.may_drop, walk.may_pass = walk.may_drop or drops, walk.may_pass or not drops
        return None
    return "drop" if drops else "accept"


def _jump(
    kind: str,
    body: object,
    certain: bool,
    key: _Chain,
    rules: dict[_Chain, list[_Json]],
    packet: Packet,
    walk: _Walk,
    depth: int,
) -> str | None:
    target = body.get("target") if isinstance(body, dict) else None
    if not isinstance(target, str) or depth >= JUMPS_MAX:
        walk.may_drop = walk.may_pass = True
        return None
    chain = (key[0], key[1], target)
    if chain not in walk.ends:
        walk.ends[chain] = _walk(chain, rules, packet, walk, depth + 1)
    end = walk.ends[chain]
    if end is not None:
        return _end(end, certain, walk)
    return "return" if kind == "goto" and certain else None


def _map(body: object, certain: bool, packet: Packet, walk: _Walk) -> str | None:
    """Takes a verdict map on something known; of any other, every verdict is possible."""
    data = body.get("data") if isinstance(body, dict) else None
    pairs = data.get("set") if isinstance(data, dict) else None
    known, value = _known(body.get("key"), packet) if isinstance(body, dict) else (False, None)
    if not isinstance(pairs, list):
        walk.may_drop = walk.may_pass = True
        return None
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], dict) or not pair[1]:
            continue
        verdict = next(iter(pair[1]))
        hit = _equals(value, pair[0]) if known else None
        if hit is False or verdict == "continue":
            continue
        if verdict in ("accept", "drop"):
            end = _end(verdict, certain and hit is True, walk)
            if end is not None:
                return end
        else:
            walk.may_drop = walk.may_pass = True
    return None


# --- matches ------------------------------------------------------------------------------------------------


def _matches(body: object, packet: Packet) -> bool | None:
    """Says whether a match holds for the packet; None: nobody can tell."""
    if not isinstance(body, dict):
        return None
    left = body.get("left")
    known, value = _known(left, packet)
    if not known and isinstance(left, dict) and "meta" in left and body.get("right") in packet.never_by:
        known = True
    if not known:
        return None
    hit = _equals(value, body.get("right"))
    operator = body.get("op", "==")
    if operator == "!=":
        return None if hit is None else not hit
    return hit if operator in ("==", "in") else None


def _known(left: object, packet: Packet) -> tuple[bool, object]:
    """Returns what the packet has there, and whether that is known."""
    match left:
        case {"payload": {"protocol": "udp" | "tcp" | "th" as protocol, "field": "dport"}}:
            if protocol != "th" and packet.protocol is not None and protocol != packet.protocol:
                return True, None
            return packet.dport is not None and packet.protocol is not None, packet.dport
        case {"payload": {"protocol": "udp" | "tcp" | "icmp" | "icmpv6" | "sctp" as protocol}}:
            other = packet.protocol is not None and protocol != packet.protocol
            return other, None
        case {"meta": {"key": "l4proto"}} | {"payload": {"field": "protocol" | "nexthdr"}}:
            return packet.protocol is not None, packet.protocol
        case {"meta": {"key": "iifname" | "iif"}}:
            return packet.iifname is not None or packet.hook == "output", packet.iifname
        case {"meta": {"key": "oifname" | "oif"}}:
            return packet.oifname is not None or packet.hook == "input", packet.oifname
        case {"ct": {"key": "state"}}:
            return True, packet.state
        case _:
            return False, None


def _equals(value: object, right: object) -> bool | None:
    """Compares with a value, a range, or a set of them; None for a named set."""
    match right:
        case {"set": [*members]} | [*members]:
            hits = [_equals(value, one) for one in members]
            return True if True in hits else None if None in hits else False
        case {"range": [int(first), int(last)]}:
            return isinstance(value, int) and first <= value <= last
        case {"elem": {"val": inner}}:
            return _equals(value, inner)
        case str() as text if text.startswith("@"):
            return None
        case str() as text:
            if not isinstance(value, str):
                return False
            return fnmatch.fnmatchcase(value, text) if text.endswith("*") else value == text
        case bool():
            return None
        case int():
            return value == right
        case _:
            return None
