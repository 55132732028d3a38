"""Who may look at the dashboard: the rules, on values.

The link of ``meshpeer dashboard`` holds a token that lives as long as the agent. It is good for one thing: a
session, whose id goes into a cookie that no script can read (HttpOnly) and no other site can make the browser
send (SameSite=Strict). What is presented is compared by digest, in constant time.

A page of another site that drives a browser here meets, in this order: the name that it reached this port by
(DNS rebinding: ``Host`` must be loopback with this very port), what the browser says of who asks (Fetch
Metadata, W3C), ``Origin`` (RFC 6454), and the cookie. RFC 6265 section 8.5 has cookies know no ports: another
server of this machine can be sent the cookie by a browser that visits it under the same name and path, so the
dashboard takes no orders and shows nothing that is secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie

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
        self._sessions: dict[bytes, float] = {}
        """When each ends, by the digest of its id; the oldest first."""

    def link(self, port: int) -> str:
        """Returns the address that opens the dashboard."""
        return f"http://{NAMES[0]}:{port}{PATH}?token={self.token}"

    def cookie_name(self, port: int) -> str:
        """Returns the cookie's name, one for each port: several agents may share a machine."""
        return f"meshpeer-{port}"

    def exchange(self, token: str) -> str | None:
        """Returns the id of a new session for the token; None for anything else."""
        if not hmac.compare_digest(_digest(token), _digest(self.token)):
            return None
        session = _text(self._entropy(TOKEN_BYTES))
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(session)] = self._now_s() + SESSION_S
        return session

    def admits(self, cookies: str, port: int) -> bool:
        """Says whether a ``Cookie`` header names a session that has not ended."""
        try:
            jar = SimpleCookie(cookies)
        except CookieError:
            return False
        morsel = jar.get(self.cookie_name(port))
        if morsel is None:
            return False
        given, now_s = _digest(morsel.value), self._now_s()
        found = [end_s for known, end_s in self._sessions.items() if hmac.compare_digest(known, given)]
        return bool(found) and found[0] > now_s


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
