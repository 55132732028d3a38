"""Hands a job over: its files first, by content, then the job itself."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from meshpeer.core.errors import LocalFault, NotRunning
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import FileRef, JobSpec
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import Job, Submission

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient

JOB_ID_LETTERS = 19


def hand_over(client: ControlClient, spec: JobSpec, sources: Mapping[str, Path | bytes]) -> Job:
    """Uploads what the agent has not got, then submits; returns once all is on disk. ``sources`` tells where
    the bytes of each file are, or holds them. Raises ``MeshpeerError``.
    """
    uploaded: set[bytes] = set()
    for file in spec.files:
        if file.digest not in uploaded:
            uploaded.add(file.digest)
            _upload(client, file, sources[file.path])
    job = make_job_id()
    try:
        return client.submit(Submission(job=job, spec=cbor.encode(spec)))
    except NotRunning as gone:
        if isinstance(gone.__cause__, FileNotFoundError | ConnectionRefusedError):
            raise
        hint = f"start it with `meshpeer up`; whether it has {job}, `meshpeer jobs list` says then"
        raise NotRunning(gone.what, hint) from gone


def make_job_id() -> JobId:
    """Makes a job's id: ``j`` and 95 random bits, in letters that survive every file name."""
    return JobId("j" + base64.b32encode(os.urandom(15)).decode("ascii")[:JOB_ID_LETTERS].lower())


def _upload(client: ControlClient, file: FileRef, source: Path | bytes) -> None:
    digest = file.digest.hex()
    if client.has_blob(digest):
        return
    if isinstance(source, bytes):
        client.put_blob(digest, file.size, io.BytesIO(source))
        return
    try:
        with source.open("rb") as content:
            if os.fstat(content.fileno()).st_size != file.size:
                raise LocalFault(
                    f"{source} changed while it was read", "submit again when nothing writes to it"
                )
            client.put_blob(digest, file.size, content)
    except OSError as error:
        raise LocalFault(f"{source} can't be read: {error.strerror}", "check its owner and mode") from error
