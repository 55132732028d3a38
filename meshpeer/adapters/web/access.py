"""Who may look at the dashboard: the rules, on values.

The link of ``meshpeer dashboard`` holds a token that lives as long as the agent. It is good for one thing: a
session, whose id goes into a cookie that no script can read (HttpOnly) and no other site can make the browser
send (SameSite=Strict). What is presented is compared by digest, in constant time.

A page of another site that drives a browser here meets, in this order: the name that it reached this port by
(DNS rebinding: ``Host`` must be loopback with this very port), what the browser says of who asks (Fetch
Metadata, W3C), ``Origin`` (RFC 6454), and the cookie. RFC 6265 section 8.5 has cookies know no ports: another
server of this machine can be sent the cookie by a browser that visits it under the same name and path, so the
cookie lets look, and no more. Orders, and what tasks print, need the session's *key* as well: it stands in
the page that answers the link, the page's script keeps it in storage of its own origin (port included), and
sends it in a header, which no form and no page of another origin can.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping

from starlette.requests import cookie_parser

TOKEN_BYTES = 32
SESSIONS_MAX = 16
"""Browsers at once; the oldest is forgotten first."""
SESSION_S = 12 * 3600.0
NAMES = ("127.0.0.1", "localhost")
PATH = "/dashboard/"
_FRAMES = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})


class Access:
    """The token of one agent and the sessions that it was exchanged for."""

    def __init__(self, entropy: Callable[[int], bytes], now_s: Callable[[], float]) -> None:
        self._entropy = entropy
        self._now_s = now_s
        self.token = _text(entropy(TOKEN_BYTES))
        self._key_secret = entropy(TOKEN_BYTES)
        self._sessions: dict[bytes, float] = {}
        """When each ends, by the digest of its id; the first to end first."""

    def link(self, port: int) -> str:
        """Returns the address that opens the dashboard."""
        return f"http://{NAMES[0]}:{port}{PATH}?token={self.token}"

    def cookie_name(self, port: int) -> str:
        """Returns the cookie's name, one for each port: several agents may share a machine."""
        return f"meshpeer-{port}"

    def exchange(self, token: str, session: str | None = None) -> str | None:
        """Returns the id of a new session for the token, or the one that there is, which ends later now; None
        for anything else."""
        if not hmac.compare_digest(_digest(token), _digest(self.token)):
            return None
        if session is not None:
            # Tabs of one browser share a cookie: those that are open keep their keys.
            self._sessions.pop(_digest(session), None)
            self._sessions[_digest(session)] = self._now_s() + SESSION_S
            return session
        session = _text(self._entropy(TOKEN_BYTES))
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(session)] = self._now_s() + SESSION_S
        return session

    def key_of(self, session: str) -> str:
        """Returns what a session gives orders with."""
        return _text(hmac.digest(self._key_secret, _digest(session), "sha256"))

    def admits(self, cookies: str, port: int) -> bool:
        """Says whether a ``Cookie`` header names a session that has not ended."""
        return self.session_of(cookies, port) is not None

    def may_order(self, cookies: str, port: int, key: str) -> bool:
        """Says whether the key is the one of the session that a ``Cookie`` header names."""
        session = self.session_of(cookies, port)
        return session is not None and hmac.compare_digest(_digest(key), _digest(self.key_of(session)))

    def session_of(self, cookies: str, port: int) -> str | None:
        """Returns the session that a ``Cookie`` header names; None for none, or one that has ended."""
        # Not SimpleCookie, which drops all cookies for one that it can't read; other servers of this machine
        # set what they like.
        session = cookie_parser(cookies).get(self.cookie_name(port))
        if session is None:
            return None
        given, now_s = _digest(session), self._now_s()
        found = [end_s for known, end_s in self._sessions.items() if hmac.compare_digest(known, given)]
        return session if found and found[0] > now_s else None


def order_refusal(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Returns the status and the reason to refuse an order for, beside ``refusal``; None where there is none.

    A browser says the origin of every POST; who does not say it is none that shows this page. JSON is what no
    form can send.
    """
    if "origin" not in headers:
        return 403, "an order says its origin"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return 415, "send application/json"
    return None


def refusal(headers: Mapping[str, str], port: int, *, top_level: bool) -> tuple[int, str] | None:
    """Returns the status and the reason to refuse a request for; None for one that may go on.

    ``headers`` by their names in lower case; ``top_level`` for what a person may come to from anywhere.
    """
    hosts = [f"{name}:{port}" for name in NAMES]
    if headers.get("host", "").lower() not in hosts:
        return 421, "this port is reached as 127.0.0.1 or localhost alone"
    origin = headers.get("origin")
    if origin is not None and origin not in [f"http://{host}" for host in hosts]:
        return 403, "another origin has no business here"
    site, dest = headers.get("sec-fetch-site", "same-origin"), headers.get("sec-fetch-dest", "")
    if top_level and headers.get("sec-fetch-mode", "navigate") == "navigate":
        return (403, "the dashboard is shown in no frame") if dest in _FRAMES else None
    return None if site == "same-origin" else (403, "another site has no business here")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")
