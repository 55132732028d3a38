"""Functions of your own as tasks of the mesh, from Python.

    from meshpeer.client import connect

    with connect() as mesh:
        job = mesh.map(render, range(24))
        frames = job.gather()

It speaks to the agent of this machine through its control socket. ``Executor`` is what
``concurrent.futures`` knows; ``aconnect`` is for trio, which is loaded with it. What comes back is unpickled
here: see ``Options.result`` for a form that is safe whoever ran the tasks.
"""

from typing import TYPE_CHECKING

from meshpeer.client.connection import Client, connect
from meshpeer.client.errors import RemoteError, Unpicklable
from meshpeer.client.executor import Executor
from meshpeer.client.jobs import Job
from meshpeer.client.options import Options

if TYPE_CHECKING:
    from meshpeer.client.asynchronous import AsyncClient, AsyncJob, aconnect

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Executor",
    "Job",
    "Options",
    "RemoteError",
    "Unpicklable",
    "aconnect",
    "connect",
]


def __getattr__(name: str) -> object:
    if name not in ("AsyncClient", "AsyncJob", "aconnect"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from meshpeer.client import asynchronous

    found: object = getattr(asynchronous, name)
    return found
