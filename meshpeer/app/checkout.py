"""Tells whether this program runs from a checkout, and from which commit: its version alone does not say."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import meshpeer

GIT_S_MAX = 2.0
"""For an answer of git; it is asked for a line that a person waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """The folder that this program is run from."""

    folder: str
    commit: str
    """Empty where git can't be asked: it is not installed, or the folder is another user's."""
    changed: bool
    """Files that git knows differ from that commit."""

    def words(self) -> str:
        """Returns ``a checkout of 1b9c387 with changes``."""
        commit = f" of {self.commit}" if self.commit else ""
        return f"a checkout{commit}{' with changes' if self.changed else ''}"


def find_checkout(package: Path | None = None) -> Checkout | None:
    """Returns the checkout that ``package`` (this program's own, where none is given) is in, or none."""
    folder = (package or Path(meshpeer.__file__).parent).resolve().parent
    if not ((folder / ".git").exists() and (folder / "pyproject.toml").exists()):
        return None
    described = _git(folder, "describe", "--always", "--dirty", "--match=nothing")
    commit = described.removesuffix("-dirty")
    return Checkout(folder=str(folder), commit=commit, changed=described != commit)


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
