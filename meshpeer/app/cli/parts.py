"""Which module holds which commands, so that a command line loads no more than it needs.

A person waits for imports. Most command lines begin with the command: then its module alone is loaded, and
else (for help, completion, or a word that is no command) all of them are.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import typer

PARTS: dict[str, tuple[str, ...]] = {
    "mesh": ("init", "join", "up", "down", "stop", "leave"),
    "invites": ("invite",),
    "look": ("status", "peers", "plan", "ping", "export", "version"),
    "map_command": ("map",),
    "top": ("top",),
    "dashboard": ("dashboard",),
    "hosts": ("hosts",),
    "why": ("why",),
    "doctor": ("doctor",),
    "charter": ("charter",),
    "revoke": ("revoke",),
    "rename": ("rename",),
    "rotate": ("rotate-key",),
    "issuer": ("issuer",),
    "root": ("root",),
    "jobs": ("jobs",),
    "drain": ("drain", "undrain"),
    "service": ("service",),
    "sim": ("sim",),
}
"""Modules of this package with the words that they add, in the order of the help."""

_TAKES_VALUE = frozenset({"--state-dir", "--run-dir", "--config"})
_FLAGS = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--debug"})
"""Options before a command that leave it what is run; others (``--help``) are about all commands."""


class Part(Protocol):
    """What such a module has."""

    def add_to(self, app: typer.Typer) -> None: ...


def needed(arguments: Sequence[str]) -> Iterator[Part]:
    """Yields the modules that this command line may need."""
    word = first_word(arguments)
    chosen = [module for module, words in PARTS.items() if word in words]
    for module in chosen or PARTS:
        yield cast(Part, importlib.import_module(f"{__package__}.{module}"))


def first_word(arguments: Sequence[str]) -> str:
    """Returns the argument behind the global options: a command only where that is what is run."""
    rest = iter(arguments)
    for argument in rest:
        if argument in _TAKES_VALUE:
            next(rest, None)
        elif argument not in _FLAGS:
            return argument
    return ""
