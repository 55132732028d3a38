"""What a person asks for when founding or joining, and what a node reports when it is ready."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    name: str = ""
    """Empty: made of the host's name."""
    region: str = ""
    roles: tuple[str, ...] = ("scheduler", "compute")
    subnet: str = "10.10.0.0/24"
    endpoint: str = ""
    """``HOST[:PORT]`` under which others reach this machine from outside."""
    topology: str = "auto"
    mesh_name: str = ""
    """Empty: made of the mesh id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    invite: str
    """The invite's text."""
    seed: str = ""
    """``HOST[:PORT]``, ``lan``, or empty for the seeds in the invite."""
    name: str = ""
    region: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReport:
    mesh: str
    name: str
    ipv4: str
    ipv6: str
    interface: str
    """Empty with backend none."""
    backend: str
    members: int
    warnings: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    """(what, seconds), in order: where the time went."""
