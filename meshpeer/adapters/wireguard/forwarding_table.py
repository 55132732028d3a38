"""The nftables table of a machine that passes packets on, as text; a pure function of what is to pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meshpeer.core.wgconf.forwarding import DesiredForwarding


def render_table(
    table: str,
    interface: str,
    wanted: DesiredForwarding,
    *,
    answers: bool,
    ipv6_closed: bool,
    closed: Collection[tuple[str, str]] = (),
) -> str:
    """Returns the table in the very form in which ``nft list table`` prints it.

    ``answers``: let what belongs to a connection from outside the mesh leave it; ``ipv6_closed``: nothing
    else of IPv6 was forwarded before. ``closed`` are interfaces that lead to LANs and forwarded nothing of a
    family (``ipv4``, ``ipv6``) before.
    """
    wg = f'iifname "{interface}"'
    rules = [
        *_between_tunnels(interface, wanted),
        *_to_lans(interface, wanted),
        *([f"{wg} ct state established,related accept"] if answers else []),
        f"{wg} drop",
        *(f'oifname "{interface}" {_ip(one.prefix)} saddr {_text(one.prefix)} drop' for one in wanted.exits),
        *(f'iifname "{device}" meta nfproto {family} drop' for device, family in sorted(closed)),
        *(["meta nfproto ipv6 drop"] if ipv6_closed else []),
    ]
    chains = [_chain("forward", "filter hook forward priority filter - 10", rules)]
    if wanted.exits and wanted.masquerade:
        hidden = [
            f'oifname "{device}" {ip} saddr {_text(mesh)} {ip} daddr {_text(lan)} masquerade'
            for lan, device, mesh, ip in _pairs(wanted)
        ]
        chains.append(_chain("postrouting", "nat hook postrouting priority srcnat", hidden))
    return f"table inet {table} {{\n" + "\n".join(chains) + "}\n"


def _between_tunnels(interface: str, wanted: DesiredForwarding) -> Iterator[str]:
    """What a hub passes on: within the mesh, and between the mesh and LANs behind others."""
    if not wanted.hub:
        return
    both = f'iifname "{interface}" oifname "{interface}"'
    for mesh in wanted.mesh:
        yield f"{both} {_ip(mesh)} saddr {_text(mesh)} {_ip(mesh)} daddr {_text(mesh)} accept"
    for lan in wanted.lans:
        for mesh in wanted.mesh:
            if _ip(mesh) == _ip(lan):
                ip = _ip(lan)
                yield f"{both} {ip} saddr {_text(mesh)} {ip} daddr {_text(lan)} accept"
                yield f"{both} {ip} saddr {_text(lan)} {ip} daddr {_text(mesh)} accept"


def _to_lans(interface: str, wanted: DesiredForwarding) -> Iterator[str]:
    """What passes between the mesh and LANs behind this machine: those only answer."""
    for lan, device, mesh, ip in _pairs(wanted):
        there = f"{ip} saddr {_text(mesh)} {ip} daddr {_text(lan)}"
        back = f"{ip} saddr {_text(lan)} {ip} daddr {_text(mesh)}"
        yield f'iifname "{interface}" oifname "{device}" {there} accept'
        yield f'iifname "{device}" oifname "{interface}" {back} ct state established,related accept'


def _pairs(wanted: DesiredForwarding) -> Iterator[tuple[str, str, str, str]]:
    """Yields (LAN, interface, prefix of the mesh, keyword) of one family each."""
    for one in wanted.exits:
        for device in one.devices:
            for mesh in wanted.mesh:
                if _ip(mesh) == _ip(one.prefix):
                    yield one.prefix, device, mesh, _ip(mesh)


def _chain(name: str, hook: str, rules: list[str]) -> str:
    lines = [
        f"\tchain {name} {{",
        f"\t\ttype {hook}; policy accept;",
        *(f"\t\t{one}" for one in rules),
        "\t}",
    ]
    return "\n".join(lines) + "\n"


def _ip(prefix: str) -> str:
    return "ip6" if ":" in prefix else "ip"


def _text(prefix: str) -> str:
    """Returns a prefix as nft prints it: a single address has no length."""
    return prefix.removesuffix("/128" if ":" in prefix else "/32")
