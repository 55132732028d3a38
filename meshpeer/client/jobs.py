"""A job as its submitter holds it: how it stands, what it printed, what its functions returned."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from meshpeer.adapters.control.client import ControlClient
from meshpeer.client.errors import RemoteError
from meshpeer.client.pickling import unpickled
from meshpeer.core.errors import EnvironmentFault, LocalFault, NotRunning, PeerFault
from meshpeer.runtime import control

T = TypeVar("T")
AWAY_S: Final = 60.0
"""How long the agent may be away (started anew, say) before who waits for results is told."""
AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a job's results are, so that they can be read."""

    unpickle: bool
    """Its submitter asked for pickles, and takes what its workers make of that."""
    chunked: bool = False
    """Each task returns the results of several calls."""
    in_order: bool = True
    """One array, whose elements are the order."""


class Job(Generic[T]):
    """One job. All that it does can be done from several threads at once."""

    def __init__(self, agent: ControlClient, job: str, name: str, form: Form) -> None:
        self.id: Final = job
        self.name: Final = name
        self._agent = agent
        self._form = form

    def __repr__(self) -> str:
        return f"<Job {self.name} {self.id}>"

    def status(self) -> control.Job:
        """Returns how it stands, as ``meshpeer jobs status --json`` does."""
        return self._agent.job(self.id)

    def tasks(self) -> list[control.Task]:
        """Returns its tasks with their attempts."""
        return self._agent.tasks(self.id)

    def watch(self) -> Iterator[control.Job]:
        """Yields how it stands now and at every change until it has ended."""
        return self._agent.watch(self.id)

    def wait(self) -> control.Job:
        """Waits for its end, however it ends."""
        last = self.status()
        for one in self.watch():
            last = one
        return last

    def cancel(self) -> control.Job:
        """Ends it: what runs is stopped, results that are there stay."""
        return self._agent.cancel(self.id)

    def logs(self, task: str = "", stream: str = "stdout") -> str:
        """Returns what a task printed so far; ``task`` may be left out where there is one."""
        text, offset = bytearray(), 0
        while True:
            piece = self._agent.log(self.id, task, stream, offset)
            text += piece.data
            offset = piece.offset
            if piece.finished or not piece.data:
                return text.decode("utf-8", "replace")

    def output(self, path: str, task: str = "") -> bytes:
        """Returns a file that a task put out."""
        return b"".join(self._agent.get_output(self.id, task, path))

    def results(self, timeout: float | None = None) -> Iterator[tuple[str, T]]:
        """Yields the id of each call's task and what it returned, as they end. Raises ``RemoteError`` at one
        that failed, ``CancelledError`` at one that was cancelled, ``TimeoutError`` after ``timeout``
        seconds."""
        for ended in self.ended(timeout):
            yield ended.task, cast(T, self.value_of(ended))

    def gather(self, timeout: float | None = None, *, return_exceptions: bool = False) -> list[T]:
        """Returns what all calls returned, in their order. Raises ``RemoteError`` at the first that fails, or
        puts the exceptions in their places (of a chunk one for all of its calls); ``TimeoutError`` after
        ``timeout`` seconds. The job goes on then."""
        values: dict[str, object] = {}
        position: dict[str, int] = {}
        for ended in self.ended(timeout):
            position[ended.task] = ended.index or 0
            try:
                values[ended.task] = self.value_of(ended)
            except (RemoteError, CancelledError) as error:
                if not return_exceptions:
                    raise
                values[ended.task] = [error] if self._form.chunked else error
        if not self._form.in_order:
            position = {task.id: place for place, task in enumerate(self.tasks())}
        found = [values[task] for task in sorted(values, key=position.__getitem__)]
        if self._form.chunked:
            found = [one for chunk in found for one in cast(list[object], chunk)]
        return cast(list[T], found)

    def result(self, timeout: float | None = None) -> T:
        """Returns what its one call returned; raises as ``gather`` does, and ``LocalFault`` where there are
        several."""
        found = self.gather(timeout)
        if len(found) != 1:
            raise LocalFault(f"the job has {len(found)} results, not one", "use gather()")
        return found[0]

    # --- what is under it -----------------------------------------------------------------------------------

    def ended(self, timeout: float | None = None) -> Iterator[control.CallResult]:
        """Yields what the agent says of each call as it ends, unread; goes on where the agent was started
        anew meanwhile."""
        ends_at = None if timeout is None else time.monotonic() + timeout
        seen: set[str] = set()
        away_since: float | None = None
        while True:
            try:
                for one in self._agent.results(self.id, silence_s=_left(ends_at, self.id)):
                    away_since = None
                    if one.task not in seen:
                        seen.add(one.task)
                        yield one
                        _left(ends_at, self.id)
                return
            except NotRunning:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > AWAY_S:
                    raise
                time.sleep(min(AGAIN_S, _left(ends_at, self.id) or AGAIN_S))
            except EnvironmentFault as fault:
                if not isinstance(fault.__cause__, TimeoutError):
                    raise
                _left(ends_at, self.id)

    def value_of(self, ended: control.CallResult) -> object:
        """Returns what a call returned; raises what it raised."""
        if ended.state == "cancelled":
            raise CancelledError
        if ended.state != "succeeded":
            raise self._error_of(ended)
        data = self._data_of(ended)
        if data is None:
            what = ended.error or "its task left nothing"
            raise RemoteError(f"the result can't be had: {what}", task=ended.task, node=ended.node)
        return self._read(ended, data)

    def _read(self, ended: control.CallResult, data: bytes) -> object:
        if ended.path.endswith(".json"):
            try:
                value: object = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise PeerFault(f"{ended.task} returned what is no JSON") from error
            return value
        if not self._form.unpickle:
            raise LocalFault(
                f"{ended.task} returned a pickle, which runs whatever its maker put into it",
                "where you trust every node that ran it: client.job(ID, unpickle=True)",
            )
        try:
            return unpickled(data)
        except Exception as error:
            raise RemoteError(
                f"what it returned can't be unpickled here: {type(error).__name__}: {_shown(str(error))}",
                task=ended.task,
                node=ended.node,
            ) from error

    def _error_of(self, ended: control.CallResult) -> RemoteError:
        """Returns what a failed call raised; its cause is the exception itself where it unpickles."""
        said: dict[str, object] = {}
        data = self._data_of(ended)
        if data is not None:
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                found = None
            said = found if isinstance(found, dict) else {}
        kind = _shown(said.get("type", ""))
        own = kind in ("CannotCall", "ResultUnfit")
        error = RemoteError(
            _shown(ended.error) or f"the task was {ended.state}",
            task=ended.task,
            node=ended.node,
            kind="" if own else kind,
            traceback="" if own else _shown(said.get("traceback", "")),
        )
        error.__cause__ = self._cause_of(said)
        return error

    def _cause_of(self, said: dict[str, object]) -> BaseException | None:
        packed = said.get("pickle")
        if not self._form.unpickle or not packed or not isinstance(packed, str):
            return None
        try:
            cause = unpickled(base64.b64decode(packed))
        except Exception:  # noqa: BLE001 - the text of it is there all the same
            return None
        return cause if isinstance(cause, BaseException) else None

    def _data_of(self, ended: control.CallResult) -> bytes | None:
        if ended.data is not None or not ended.path:
            return ended.data
        return self.output(ended.path, ended.task)


def _shown(text: object) -> str:
    """Returns text of another machine without what could take hold of a terminal; nothing for no text."""
    if not isinstance(text, str):
        return ""
    return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text)


def _left(ends_at: float | None, job: str) -> float | None:
    """Returns how much time is left; raises ``TimeoutError`` where there is none."""
    if ends_at is None:
        return None
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"job {job} has not ended in time; it goes on")
    return left
