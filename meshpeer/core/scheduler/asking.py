"""Questions about jobs that a node asks another: whoever owns the job, or keeps a replica of it, answers.

Core only passes them on: what is asked and answered are the documents of the control API."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from meshpeer.core.ids import Digest, NodeId

ANSWER_INLINE_BYTES_MAX = 40 * 1024
"""Longer answers are kept as a file, and fetched."""
ARGUMENT_LENGTH_MAX = 4_096


class JobAsked(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.asked"):
    """Somebody at the sender's wants to know of a job, or wants it cancelled."""

    number: int
    what: str
    arguments: tuple[str, ...] = ()


class JobAnswered(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="job.answered"):
    """The answer to the question of this number: a document, its digest where it is long, or an error."""

    number: int
    body: bytes = b""
    digest: Digest = Digest(b"")
    size: int = 0
    error: str = ""
    hint: str = ""


FRAMES = (JobAsked, JobAnswered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """This node's own control API has something to say to a peer."""

    peer: NodeId
    message: JobAsked | JobAnswered


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOn:
    """Give a peer's question, or its answer, to the control API."""

    peer: NodeId
    message: JobAsked | JobAnswered
