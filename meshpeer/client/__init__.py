"""Functions of your own as tasks of the mesh, from Python.

    from meshpeer.client import connect

    with connect() as mesh:
        job = mesh.map(render, range(24))
        frames = job.gather()

It speaks to the agent of this machine through its control socket. ``Executor`` is what
``concurrent.futures`` knows; ``aconnect`` is for trio. What comes back is unpickled here: see
``Options.result`` for a form that is safe whoever ran the tasks.
"""

from meshpeer.client.asynchronous import AsyncClient, AsyncJob, aconnect
from meshpeer.client.connection import Client, connect
from meshpeer.client.errors import RemoteError, Unpicklable
from meshpeer.client.executor import Executor
from meshpeer.client.jobs import Job
from meshpeer.client.options import Options

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
