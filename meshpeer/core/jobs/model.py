"""A job as a value: what the client sends, what the owner signs and keeps, what workers read.

These shapes travel (canonical CBOR) and rest in the journal, so fields are only ever added, with defaults.
Durations are milliseconds and counts integers: signed bodies carry no floats.
"""

from __future__ import annotations

import msgspec

from meshpeer.core.ids import Digest, JobId, NodeId


class FileRef(msgspec.Struct, frozen=True, kw_only=True):
    """One file by content: where it stands in a scratch folder, and what it is."""

    path: str
    """Relative, normalised, never absolute, never with ``..``."""
    digest: Digest
    size: int
    executable: bool = False


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``needs``: all of a task, or its element of the same index."""

    task: str
    same_index: bool = False
    into: str = ""
    """Folder that the needed outputs are staged under; empty for their own paths."""
    when: str = "succeeded"
    """One of ``rules.NEED_ENDS``, or ``rules.EXIT``: which end of the needed task meets this need. Any other
    skips who needs it."""
    exits: tuple[int, ...] = ()
    """The exit codes that meet it, rising, where ``when`` is ``rules.EXIT``."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes may run a task: of each field that says something, a node has to match one entry; of
    ``labels`` one value under each name."""

    regions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    nodes: tuple[str, ...] = ()
    """Names of nodes."""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One element of an array: its named fields as the text that tasks see."""

    fields: tuple[tuple[str, str], ...] = ()


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """An array of ``size`` tasks; ``elements`` is empty for plain ranges, else has ``size`` entries.

    Elements count from 0, in task ids and in ``$index``.
    """

    size: int
    elements: tuple[Element, ...] = ()


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A service that does a task's work, beside the worker."""

    url: str
    body: str = ""
    """JSON text whose strings are expanded; empty for an empty object."""


class PythonCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function that does a task's work: named by a job file, or pickled by the Python client."""

    call: str = ""
    """``package.module:function``; empty where it is pickled."""
    arguments: str = ""
    """JSON text ``{"args": [...], "kwargs": {...}}`` whose strings are expanded; empty for none."""
    calls: str = ""
    """The path of the job's file that holds pickled calls, one for each element (``jobs.calls``)."""
    result: str = "json"
    """One of ``python.RESULTS``: what the value is put out as."""
    version: str = ""
    """``3.11``: which Python pickled the calls, and can run them alone. Empty where that is not said."""


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One task of the file, before arrays are expanded. Exactly one of ``argv``, ``shell``, ``webhook`` and
    ``python`` is there."""

    name: str
    argv: tuple[str, ...] = ()
    shell: str = ""
    needs: tuple[Need, ...] = ()
    array: Array | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    """Relative to the scratch folder; empty for the folder itself."""
    retries: int = 0
    timeout_ms: int = 0
    """0 for no limit."""
    cpu: int = 1
    outputs: tuple[str, ...] = ()
    """Paths, glob patterns, or folders (with a trailing slash), relative to the scratch folder."""
    memory_bytes: int = 0
    """0 for no limit of its own: what the node gives to all tasks together bounds it."""
    processes: int = 0
    """Processes and threads at once; 0 for ``rules.PROCESSES_MAX``."""
    output_bytes: int = 0
    """Of stdout, stderr and all that stands in the scratch folder, together; 0 for the node's own limit."""
    network: str = "host"
    """One of ``rules.NETWORKS``; ``none`` is a network namespace with nothing but a loopback."""
    secrets: tuple[str, ...] = ()
    """Names alone: each worker has values of its own, in its own file."""
    webhook: Webhook | None = None
    python: PythonCall | None = None
    resources: tuple[tuple[str, int], ...] = ()
    """Named counts beside cpu and memory, such as ``gpu``, by name."""
    where: Where | None = None
    """None for any node."""
    priority: int = 0
    """Among the tasks of this job; the higher one is granted and started first."""
    backoff_ms: int = 0
    """The pause before the first retry, which doubles with each; 0 for the usual."""
    backoff_max_ms: int = 0
    """The longest pause; 0 for the usual."""
    on_failure: str = "continue"
    """One of ``rules.FAILURE_WAYS``: what a failure of this task does to the rest of the job."""
    group: str = ""
    """The concurrency group of the job that it counts in; empty for none."""
    speculate: bool = True
    """Whether a second attempt may run beside one that takes far longer than its like."""
    crash_limit: int = 0
    """After how many workers that were lost while they ran it the task is given up; 0 for the usual 3."""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A validated job: what ``jobs.spec`` makes of a file."""

    name: str
    tasks: tuple[TaskSpec, ...]
    files: tuple[FileRef, ...] = ()
    """Present in every task's scratch folder."""
    on_complete: str = ""
    """A URL that the owner tells the job's end; empty for none."""
    on_failure: str = ""
    """The same, where the job has failed."""
    priority: int = 0
    """Among the jobs of one submitter."""
    groups: tuple[tuple[str, int], ...] = ()
    """Concurrency groups by name, and how many of their tasks are granted at once."""
    keep_s: int = 0
    """How long its results stay after its end, at least; 0 for as long as each node says."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the submitter signs (``records.envelope``, context ``meshpeer/job/v1``): the job for good.

    ``generation`` grows only by ``adopt --force``; ``replicas`` are frozen here (a recomputed set would break
    quorum
    intersection). With one replica the job's durability is ``this_node``.
    """

    job: JobId
    submitter: NodeId
    submitted_at_us: int
    """Microseconds since the Unix epoch."""
    spec: JobSpec
    generation: int = 1
    replicas: tuple[NodeId, ...] = ()


def task_id(name: str, index: int | None) -> str:
    """Returns ``name`` or ``name[index]``."""
    return name if index is None else f"{name}[{index}]"
