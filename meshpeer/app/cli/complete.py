"""Completes names of members, jobs and tasks in a shell, as this machine's agent knows them.

An argument is completed by what its metavar names. The agent is asked once; where none runs, does not answer
at once, or does not let this user ask, there is nothing to complete, and no word about it: a person is
typing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient

ANSWER_S_MAX = 1.0
CANDIDATES_MAX = 500
"""More than a shell shows at once."""


def members(ctx: typer.Context, incomplete: str) -> list[str]:
    """Returns names of members that begin so, this node's among them."""

    def ask(client: ControlClient) -> Iterable[str]:
        return [client.status().node.name, *(one.name for one in client.peers() if one.state != "left")]

    return _chosen(ask, ctx, incomplete)


def jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Returns names and ids of jobs that begin so."""

    def ask(client: ControlClient) -> Iterable[str]:
        found = client.jobs()
        return [*(one.name for one in found), *(one.id for one in found)]

    return _chosen(ask, ctx, incomplete)


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Returns ids of tasks that begin so, of the job that was named before."""
    job = ctx.params.get("job")
    return _chosen(lambda client: [one.id for one in client.tasks(str(job))], ctx, incomplete) if job else []


BY_METAVAR: dict[str, Callable[[typer.Context, str], list[str]]] = {
    "NODE": members,
    "[NODE]": members,
    "[NODE|INVITE|ISSUER]": members,
    "[A] B": members,
    "JOB": jobs,
    "TASK": tasks,
    "[TASK]": tasks,
}


def _chosen(ask: Callable[[ControlClient], Iterable[str]], ctx: typer.Context, incomplete: str) -> list[str]:
    found: list[str] = []

    def run() -> None:
        from meshpeer.core.errors import MeshpeerError

        try:
            found.extend(ask(_client(ctx)))
        except MeshpeerError:
            pass

    # A thread, since the client waits long for an agent that is busy; it ends with this process.
    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(ANSWER_S_MAX)
    chosen = dict.fromkeys(
        one for one in [*found] if one and one.startswith(incomplete) and one.isprintable()
    )
    return [*chosen][:CANDIDATES_MAX]


def _client(ctx: typer.Context) -> ControlClient:
    """Returns a client of the agent that the line, as far as it is typed, means."""
    from meshpeer.app.cli.asked import Asked

    asked = Asked()
    one: typer.Context | None = ctx
    while one is not None:
        given = one.params
        further = Asked(
            state_dir=given.get("state_dir"), run_dir=given.get("run_dir"), config=given.get("config")
        )
        asked = further.with_nearer(asked)
        one = one.parent  # type: ignore[assignment]
    return asked.client()
