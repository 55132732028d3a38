"""The two pages of the dashboard: the shell that its script fills, and what is seen without a session.

Neither holds anything of the mesh: what others wrote reaches the page as data, and its script makes text of
it, never markup.
"""

from __future__ import annotations

from html import escape
from importlib import resources

_KEY_PLACE = "<!-- key -->"
_STATIC = resources.files("meshpeer.adapters.web").joinpath("static")


def page(key: str | None) -> str:
    """Returns the page; with the key of its session where it answers the link."""
    shell = _STATIC.joinpath("page.html").read_text("utf-8")
    return shell.replace(_KEY_PLACE, f'<meta name="meshpeer-key" content="{escape(key)}">' if key else "")


def closed_page() -> str:
    """Returns what somebody sees who has no session: nothing of the mesh."""
    return _STATIC.joinpath("closed.html").read_text("utf-8")


def file(name: str) -> str:
    """Returns the text of one of the page's own files."""
    return _STATIC.joinpath(name).read_text("utf-8")
