"""Which URLs a webhook may have, and which of them a node lets jobs call.

A job comes from somebody else and a worker calls what it names, from inside of the worker's network: without
a rule of the worker's own that is server-side request forgery by design (OWASP, "SSRF Prevention"). So a
node allows origins, by default those of its own loopback, and never the agent's own ports there. Names are
compared as they are written and are not resolved: a name that somebody else can point at 127.0.0.1 is not
loopback, and one that the operator allows is the operator's word for whoever answers to it. Redirects are
not followed, or a service could lead the worker on.

Only URLs in the plainest form are taken (RFC 3986 knows many more): what two parsers could read in two ways
is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from meshpeer.core.jobs.rules import Fault, shown

URL_BYTES_MAX = 2_048
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_PORT = "*"
_PORTS = {"http": 80, "https": 443}
_FORM = "write http://HOST:PORT/PATH, such as http://127.0.0.1:8000/run"
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)"
    r"(?::(?P<port>[1-9][0-9]{0,4}|\*))?(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""A part of a host's name (RFC 1123 section 2.1, RFC 1035 section 2.3.4): resolvers refuse others, each in
its own way.
"""
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|;|%3b|$)|%2f|%5c|%00|%25", re.IGNORECASE)
"""Segments that some servers take for a way up, even with parameters (RFC 3986 section 3.3) that they drop
first; slashes in disguise; and what is another thing to whoever decodes twice.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """The parts of a URL in the plainest form."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without brackets, in its shortest form."""
    port: int | None
    """None for any port, in what a node allows."""
    path: str


def url_fault(url: str) -> Fault | None:
    """Returns why a webhook can't have this URL, whoever calls it; None for one that it can."""
    parsed = _parsed(url)
    if isinstance(parsed, Fault):
        return parsed
    return Fault(f"{shown(url)} has no port", _FORM) if parsed.port is None else None


def allow_fault(entry: str) -> Fault | None:
    """Returns why this is nothing that a node can allow: a URL whose port may be ``*``, without a query,
    and with the path that calls must begin with."""
    parsed = _parsed(entry)
    if isinstance(parsed, Fault):
        return parsed
    return Fault(f"{shown(entry)} has a query", "leave out what follows '?'") if "?" in entry else None


def refusal(url: str, allowed: Sequence[str], own_ports: Collection[int]) -> str:
    """Returns why this node's rules let no job call this URL, or nothing; expects checked values.

    ``own_ports`` are the agent's own, which no job may call on loopback even where all ports are allowed.
    """
    parsed = _parsed(url)
    if isinstance(parsed, Fault) or parsed.port is None:
        return "its URL is not in the form that webhooks have"
    if is_loopback(parsed.host) and parsed.port in own_ports:
        return f"port {parsed.port} is this node's own agent's"
    rules = [rule for entry in allowed if not isinstance(rule := _parsed(entry), Fault)]
    if any(_covers(rule, parsed) for rule in rules):
        return ""
    return f"this node lets no job call {parsed.scheme}://{_host_text(parsed.host)}:{parsed.port}"


def is_loopback(host: str) -> bool:
    """Says whether a host, as it is written, is this machine's loopback."""
    if host in LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def _covers(rule: Url, url: Url) -> bool:
    return (
        (rule.scheme, rule.host) == (url.scheme, url.host)
        and rule.port in (None, url.port)
        and (url.path == rule.path or url.path.startswith(rule.path.rstrip("/") + "/"))
    )


def _parsed(url: str) -> Url | Fault:
    if len(url) > URL_BYTES_MAX:
        return Fault(f"the URL is longer than {URL_BYTES_MAX:,} characters", "put it into the body")
    match = _URL.fullmatch(url)
    if match is None:
        return Fault(f"{shown(url)} is no URL of a webhook", _FORM)
    host = _host(match["host"])
    if host is None:
        return Fault(f"{shown(url)} has no proper host", "name the host, or write its address in full")
    path = match["path"] or "/"
    if _DOTS.search(path):
        return Fault(f"{shown(url)} has a path that climbs, or hides a slash", "write it without")
    written = match["port"]
    port = None if written == ANY_PORT else int(written) if written else _PORTS[match["scheme"]]
    if port is not None and port > 65_535:
        return Fault(f"{port} is not a port", "use 1 to 65535")
    return Url(scheme=match["scheme"], host=host, port=port, path=path)


def _host(written: str) -> str | None:
    """Returns a host in one form; None for what is neither a name nor an address in full. ``0x7f.1`` and
    ``127.1`` are addresses to some resolvers, so a host that ends like a number must be an address."""
    if written.startswith("["):
        try:
            return ipaddress.IPv6Address(written[1:-1]).compressed
        except ValueError:
            return None
    last = written.rpartition(".")[2]
    if last.isdecimal() or last.startswith("0x"):
        try:
            return str(ipaddress.IPv4Address(written))
        except ValueError:
            return None
    return written if len(written) <= 253 and all(map(_LABEL.fullmatch, written.split("."))) else None


def _host_text(host: str) -> str:
    return f"[{host}]" if ":" in host else host
