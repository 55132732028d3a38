"""The way to this machine's agent, for plain code: functions go out as jobs, job files too."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

import msgspec

from meshpeer.adapters.control.client import ControlClient
from meshpeer.app.cli.job_submit import hand_over
from meshpeer.client import pickling
from meshpeer.client.jobs import Form, Job
from meshpeer.client.options import CALLS, Options, files_of, spec_of
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.model import FileRef, JobSpec
from meshpeer.runtime import control

P = ParamSpec("P")
T = TypeVar("T")
RUN_DIR = "/run/meshpeer"


def connect(run_dir: str | os.PathLike[str] | None = None) -> Client:
    """Returns a client of the agent whose run folder is named, else of ``$MESHPEER_RUN_DIR``, else of the
    machine's own. Raises ``NotRunning`` where none answers, ``Refused`` where this user may not ask it."""
    client = Client(run_dir)
    client.status()
    return client


class Client:
    """Asks one agent. It holds no connection, so it may be shared by threads, and be kept for long."""

    def __init__(self, run_dir: str | os.PathLike[str] | None = None, options: Options | None = None) -> None:
        folder = run_dir if run_dir is not None else os.environ.get("MESHPEER_RUN_DIR", RUN_DIR)
        self.agent = ControlClient(Path(folder) / "agent.sock")
        self.options = options or Options()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close; jobs go on."""

    def using(self, options: Options) -> Client:
        """Returns a client of the same agent whose calls run with these options."""
        return Client(self.agent.path.parent, options)

    def status(self) -> control.Status:
        """Returns what ``meshpeer status --json`` does."""
        return self.agent.status()

    # --- functions ------------------------------------------------------------------------------------------

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Has a function called on some node, once; ``result()`` of what it returns waits for that. Returns
        when the job is on disk. Raises ``Unpicklable``, and ``LocalFault`` for what is too large."""
        packed = pickling.pickled_function(function, self.options.carry)
        call = (packed, pickling.pickled_arguments(args, kwargs, self.options.carry))
        return self.submit_calls([call], pickling.name_of(function), array=False)

    def map(
        self, function: Callable[..., T], /, *iterables: Iterable[object], chunks: int | None = None
    ) -> Job[T]:
        """Has a function called with each item (of several iterables: with one of each), as one job of many
        tasks. ``chunks`` is how many tasks that are, each of which makes several calls in one process; a
        task per call unless it is said. ``gather()`` returns the results in order."""
        calls = list(zip(*iterables, strict=False))
        if not calls:
            raise LocalFault("there are no calls to make", "give map an iterable with something in it")
        packed = pickling.pickled_function(function, self.options.carry)
        if chunks is None:
            arguments = [pickling.pickled_arguments(one, {}, self.options.carry) for one in calls]
        elif chunks < 1:
            raise LocalFault(f"{chunks} chunks are none", "give 1 or more")
        else:
            size = math.ceil(len(calls) / chunks)
            arguments = [
                pickling.pickled_chunk(calls[at : at + size], self.options.carry)
                for at in range(0, len(calls), size)
            ]
        name = pickling.name_of(function)
        return self.submit_calls(
            [(packed, one) for one in arguments], name, array=True, chunked=chunks is not None
        )

    def submit_calls(
        self, calls: list[tuple[bytes, bytes]], name: str, *, array: bool, chunked: bool = False
    ) -> Job[T]:
        """Submits calls that are pickled already, each a function and its arguments, as one job."""
        data = pickling.calls_of(calls)
        ref = FileRef(path=CALLS, digest=Digest(hashlib.sha256(data).digest()), size=len(data))
        files, sources = files_of(self.options)
        spec = spec_of(self.options, name, ref, len(calls) if array else None, files)
        made = hand_over(self.agent, spec, {**sources, CALLS: data})
        form = Form(unpickle=self.options.result == "pickle", chunked=chunked)
        return Job(self.agent, made.id, made.name, form)

    # --- jobs -----------------------------------------------------------------------------------------------

    def submit_job(self, job: str | os.PathLike[str] | Mapping[str, object] | JobSpec) -> Job[object]:
        """Submits a job file by its path, or what would stand in one as a mapping (its files are looked up in
        the working folder), or a checked spec without files. Raises ``InvalidJob`` with all that is wrong."""
        from meshpeer.adapters.specfile.load import load_job, load_text

        sources: Mapping[str, Path] = {}
        if isinstance(job, JobSpec):
            spec = job
        elif isinstance(job, Mapping):
            try:
                document = msgspec.json.encode(job)
            except (TypeError, ValueError) as error:
                raise LocalFault(
                    f"the job is no JSON: {error}", "use texts, numbers, lists, dicts"
                ) from error
            loaded = load_text(document, source_name="job.json", folder=Path.cwd())
            spec, sources = loaded.spec, loaded.sources
        else:
            loaded = load_job(os.fspath(job))
            spec, sources = loaded.spec, loaded.sources
        made = hand_over(self.agent, spec, sources)
        return Job(self.agent, made.id, made.name, Form(unpickle=False, in_order=False))

    def job(self, job: str, *, unpickle: bool = False) -> Job[object]:
        """Returns a job by its id, the beginning of one, or a name. ``unpickle`` reads pickled results, which
        can run code of whoever made them."""
        found = self.agent.job(job)
        return Job(self.agent, found.id, found.name, Form(unpickle=unpickle, in_order=False))

    def jobs(self) -> list[control.Job]:
        """Returns all jobs that this agent knows, newest first."""
        return self.agent.jobs()
