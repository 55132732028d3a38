"""Judges the machine's firewall: does it drop what the mesh needs?

An explicit rule is told from a policy, what answers from what others begin: WireGuard behind a firewall that
lets answers in works with every peer that is reachable itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from meshpeer.core.wgconf.rulesets import Fate, Packet, RulesetUnreadable, Verdict, judge_ruleset
from meshpeer.runtime.doctor import BAD, OK, UNKNOWN, WARNING, Finding

FIREWALL = "firewall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What has to get through."""

    wireguard_port: int
    """0: nothing of WireGuard's."""
    control_port: int
    interface: str
    forwards: bool = False


def judge_firewall(text: bytes | None, why_not: str, legacy: bool, wanted: Wanted) -> list[Finding]:
    """Returns what rules of others do to the mesh's packets; ``legacy``: there are iptables of the older
    kind, which can't be seen here."""
    if text is None:
        return [_finding("rules", UNKNOWN, f"the rules of nftables can't be looked at: {why_not}")]
    try:
        found = _judge(text, wanted)
    except RulesetUnreadable:
        return [_finding("rules", UNKNOWN, "the rules of nftables can't be read", "nft list ruleset")]
    if not any(one.level != OK for one in found):
        found = [_finding("rules", OK, f"nftables drops nothing of {_what(wanted)}")]
    if legacy:
        text_ = "there are rules of iptables-legacy, which are not looked at"
        found.append(_finding("legacy", UNKNOWN, text_, "iptables-legacy -S shows them"))
    return found


def _judge(text: bytes, wanted: Wanted) -> list[Finding]:
    found: list[Finding] = []
    udp, tcp, outside = wanted.wireguard_port, wanted.control_port, ("lo", wanted.interface)
    if udp:
        inward = Packet(hook="input", protocol="udp", dport=udp, never_by=outside)
        found += _of_port("udp_in", f"UDP {udp}", text, inward)
        outward = Packet(hook="output", protocol="udp", dport=udp, never_by=outside)
        for one in judge_ruleset(text, outward):
            level = BAD if one.fate is Fate.DROPS else WARNING
            said = f"{_chain(one)} {one.fate.value} what this node sends to UDP {udp} of others"
            found.append(_finding("udp_out", level, said, _accept(one, f"udp dport {udp}")))
    if tcp:
        inward = Packet(hook="input", protocol="tcp", dport=tcp, never_by=outside)
        found += _of_port("tcp_in", f"TCP {tcp}", text, inward)
    if wanted.forwards and wanted.interface:
        name = wanted.interface
        own = f"meshpeer_{name.replace('-', '_').replace('.', '_')}"
        through = Packet(hook="forward", iifname=name, oifname=name)
        for one in judge_ruleset(text, through, own=own):
            level = BAD if one.fate is Fate.DROPS else WARNING
            said = f"{_chain(one)} {one.fate.value} what this node passes on for others"
            found.append(
                _finding("forward", level, said, _accept(one, f"iifname {name} oifname {name}", (name, name)))
            )
    return found


def _of_port(check: str, port: str, text: bytes, inward: Packet) -> list[Finding]:
    """What is dropped even of an answer is lost for good; what is new only is lost to those who begin."""
    answers = {one.chain: one for one in judge_ruleset(text, replace(inward, state="established"))}
    found: list[Finding] = []
    for one in judge_ruleset(text, inward):
        todo = _accept(one, f"{inward.protocol} dport {inward.dport}")
        closed = answers.get(one.chain)
        if one.fate is Fate.MAY_DROP:
            said, level = f"{_chain(one)} may drop {port}: its rules can't be judged from here", WARNING
        elif closed is not None and closed.fate is Fate.DROPS:
            said, level = f"{_chain(one)} drops {port}", BAD
        else:
            said = f"{_chain(one)} drops {port} where another node begins, and lets answers in"
            level = WARNING
        found.append(_finding(check, level, said, todo))
    return found


def _chain(one: Verdict) -> str:
    family, table, name = one.chain.split(" ", 2)
    by = " by its policy" if one.by_policy else ""
    return f"the chain {name} of nftables' table {family} {table}{by}"


def _accept(one: Verdict, match: str, through: tuple[str, str] | None = None) -> str:
    """Returns how to let it pass, in the words of whoever keeps the rules."""
    family, table, name = one.chain.split(" ", 2)
    port = match.split()[-1]
    protocol = match.split()[0]
    if table == "firewalld" and through is None:
        return f"firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
    if family in ("ip", "ip6") and table == "filter" and name.isupper():
        tool = "iptables" if family == "ip" else "ip6tables"
        if through is not None:
            return f"{tool} -I {name} -i {through[0]} -o {through[1]} -j ACCEPT"
        hint = f"{tool} -I {name} -p {protocol} --dport {port} -j ACCEPT"
        return f"{hint} (with ufw: ufw allow {port}/{protocol})" if name == "INPUT" else hint
    return f"nft insert rule {family} {table} {name} {match} accept"


def _what(wanted: Wanted) -> str:
    ports = ([f"UDP {wanted.wireguard_port}"] if wanted.wireguard_port else []) + (
        [f"TCP {wanted.control_port}"] if wanted.control_port else []
    )
    forwarded = ", nor of what is passed on" if wanted.forwards else ""
    return " and ".join(ports) + forwarded


def _finding(check: str, level: str, text: str, *todo: str) -> Finding:
    return Finding(group=FIREWALL, check=check, level=level, text=text, todo=todo)
