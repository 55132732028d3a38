"""The rows of the dashboard's tables. What a row does not name is as its default says: pages of thousands of
rows are sent. Times are Unix seconds."""

from __future__ import annotations

import msgspec

from meshpeer.runtime.control import Doc


class Row(Doc, frozen=True, kw_only=True, omit_defaults=True):
    """One row; its table and key stand beside it."""


class MeshRow(Row, frozen=True, kw_only=True):
    """The mesh as this node sees it, and this node: the one row of ``mesh``."""

    mesh: str
    node: str
    id: str
    health: str
    mode: str
    version: str
    warnings: tuple[str, ...] = ()
    states: dict[str, int] = msgspec.field(default_factory=dict)
    """Members by state."""
    agree: int = 0
    agree_total: int = 0
    differ: tuple[str, ...] = ()
    """Who derives the plan from other facts, and from which."""
    travels: int = 0
    """Of how many it may be no more than news on its way; these are not among ``differ``."""
    unknown: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Members that were asked for their jobs and did not answer."""
    jobs_as_of: float = 0.0
    """When they were asked last; 0: not yet."""
    files: int = 0
    files_max: int = 0
    """Bytes that files of jobs take on this node, and may take."""
    files_coming: int = 0


class MemberRow(Row, frozen=True, kw_only=True):
    """A member, this node included, by its id."""

    name: str
    rank: int
    """Its place in the list."""
    region: str = ""
    me: bool = False
    roles: tuple[str, ...] = ()
    hub: str = ""
    """``hub``, ``standby`` or empty."""
    state: str = "alive"
    since: str = ""
    because: str = ""
    observers: tuple[str, ...] = ()
    agreement: str = "agrees"
    """``agrees``, ``differs``, ``travels`` (it may be news on its way), ``unknown``; empty for the gone."""
    differs: tuple[str, ...] = ()
    path: str = ""
    via: str = ""
    via_id: str = ""
    rtt_ms: float | None = None
    link: str = ""
    link_via: str = ""
    ipv4: str = ""
    ipv6: str = ""
    endpoint: str = ""
    routes: tuple[str, ...] = ()
    mtu: int = 0
    reported: str = ""
    handshake_at: int = 0
    """Rounded to 10 s; 0 for none."""
    work: str = ""
    slots: int = 0
    busy: int = 0
    """Tasks of known jobs that run there."""
    done: int = 0
    memory: int = 0
    resources: dict[str, int] = msgspec.field(default_factory=dict)


class MapRow(Row, frozen=True, kw_only=True):
    """The size of the map, in pixels: the one row of ``map``."""

    width: int
    height: int
    dense: bool = False
    """Members that are no hubs are dots without names."""


class BoxRow(Row, frozen=True, kw_only=True):
    """A region on the map, by its name."""

    x: int
    y: int
    width: int
    height: int
    title: str


class PlaceRow(Row, frozen=True, kw_only=True):
    """Where the sign of a member stands, by its id."""

    x: int
    y: int
    label: int = 0
    """How much room its name has, to the right; 0 for a dot."""


class PairRow(Row, frozen=True, kw_only=True):
    """Two hubs between which a tunnel is planned that is none of this node's, by their ids."""

    source: str
    target: str


class JobRow(Row, frozen=True, kw_only=True):
    """A job, by its id."""

    name: str
    state: str
    owner: str
    submitted: str
    finished: str = ""
    durability: str = ""
    paused: bool = False
    priority: int = 0
    as_of: str = ""
    total: int = 0
    waiting: int = 0
    ready: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    shown: int = 0
    """Of the job that is looked at: how many of its tasks are listed."""
    trouble: str = ""
    """Why nothing more is known of it."""


class BoxOfTasks(Row, frozen=True, kw_only=True):
    """A task of the job's file on its graph, by name."""

    x: int
    y: int
    width: int
    height: int
    count: int
    array: bool = False
    states: dict[str, int] = msgspec.field(default_factory=dict)


class EdgeRow(Row, frozen=True, kw_only=True):
    """A need: the corners that its line goes through."""

    corners: tuple[tuple[int, int], ...]


class TryRow(Row, frozen=True, kw_only=True, array_like=True, omit_defaults=False):
    """One attempt."""

    node: str
    state: str
    start: float
    end: float
    """0 while it runs."""
    stolen_from: str


class TaskRow(Row, frozen=True, kw_only=True):
    """A task of the job that is looked at, by its number."""

    id: str
    state: str
    node: str = ""
    tries: tuple[TryRow, ...] = ()
    exit_code: int | None = None
    error: str = ""
    out: int = 0
    err: int = 0
    """Bytes of its output that are kept."""


class StoryRow(Row, frozen=True, kw_only=True):
    """Something that changed, by its number."""

    at: float
    kind: str
    """``member``, ``path``, ``hub``, ``agreement``, ``mesh``, ``work``, ``job``, or ``log``."""
    text: str
    because: str = ""
    tone: str = ""
    """``good``, ``doubt``, ``bad`` or empty."""
