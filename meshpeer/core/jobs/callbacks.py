"""What a service says when it calls back: ``{"status": "succeeded"|"failed", "result": ANY, "error": TEXT}``.

The result is kept as the bytes that the service wrote; nothing here looks into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from meshpeer.core.jobs.rules import Fault

RESULT_BYTES_MAX = 1024 * 1024
"""A result, by call-back or as an answer: what a task's stdout would be."""
CALLBACK_BYTES_MAX = RESULT_BYTES_MAX + 64 * 1024
ERROR_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """How the service ended the work."""

    succeeded: bool
    result: bytes
    """JSON; empty where nothing was said."""
    error: str


class _Shape(msgspec.Struct, frozen=True):
    status: Literal["succeeded", "failed"]
    result: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""


def read_callback(body: bytes) -> Callback | Fault:
    """Reads the body of a call-back, or says what is wrong with it. Keys beyond the three are no fault."""
    if len(body) > CALLBACK_BYTES_MAX:
        return Fault(f"the call-back is larger than {CALLBACK_BYTES_MAX:,} bytes", "send a reference")
    try:
        said = msgspec.json.decode(body, type=_Shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Fault(
            f"the call-back can't be read: {error}"[:200], 'send {"status": "succeeded", "result": 1}'
        )
    result = bytes(said.result)
    if len(result) > RESULT_BYTES_MAX:
        return Fault(f"the result is larger than {RESULT_BYTES_MAX:,} bytes", "send a reference")
    return Callback(succeeded=said.status == "succeeded", result=result, error=one_line(said.error))


def one_line(text: str) -> str:
    """Returns what a service wrote as one line that is fit for a terminal, shortened."""
    plain = "".join(one if one.isprintable() else " " for one in text[: 4 * ERROR_CHARACTERS_MAX])
    line = " ".join(plain.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= ERROR_CHARACTERS_MAX else line[: ERROR_CHARACTERS_MAX - 3] + "..."
