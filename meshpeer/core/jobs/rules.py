"""The leaf rules of a job: which names, paths, numbers and texts are allowed. Each returns what is wrong, or
nothing.

They serve twice: when a file is read, and when a spec arrives from elsewhere, where nothing that the sender
claims to have checked is believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

JOB_NAME_CHARACTERS_MAX = 100
TASK_NAME_CHARACTERS_MAX = 64
RETRIES_MAX = 100
CRASH_LIMIT_MAX = 100
CPU_MAX = 4_096
TIMEOUT_MS_MAX = 366 * 24 * 3_600_000
"""A year; a longer time-out is a slip of the unit."""
ARGUMENT_BYTES_MAX = 128 * 1024 - 1
"""One argument or environment string: Linux refuses more (MAX_ARG_STRLEN, execve(2))."""
ARGUMENTS_MAX = 4_096
NEEDS_MAX = 10_000
PAIRS_MAX = 5_000_000
"""Elements of a job times their ``x[index]`` needs: what the scheduler counts one by one."""
ENV_MAX = 256
OUTPUTS_MAX = 1_000
FILES_MAX = 10_000
ARRAY_FIELDS_MAX = 16
FIELD_VALUE_BYTES_MAX = 4_096
PATH_BYTES_MAX = 1_024
PATH_PART_BYTES_MAX = 255
"""One name in a path (NAME_MAX of the usual Linux file systems)."""
MEMORY_BYTES_MIN = 16 * 1024**2
"""Below, many an interpreter does not start."""
OUTPUT_BYTES_MIN = 4 * 1024
FILE_BYTES_UNASKED = 64 * 1024**2
"""One file of a task whose job says nothing of its output: what runs wild ends early. With ``limits:
{output}`` a file may be all of that."""
SIZE_BYTES_MAX = 2**50
"""A pebibyte; more is a slip of the unit."""
PROCESSES_MAX = 512
"""Processes and threads of a task at once."""
SECRETS_MAX = 64
RESOURCES_MAX = 16
"""Named counts of one task, and of one node."""
RESOURCE_COUNT_MAX = 1_000_000
WHERE_MAX = 64
"""Entries of one field of ``where``."""
WHERE_LABELS_MAX = 16
PLACEMENTS_MAX = 256
"""Different demands and groups of one job's tasks: the owner goes through all of them."""
LABELS_MAX = 16
"""Labels of one node."""
LABEL_BYTES_MAX = 128
PRIORITY_MAX = 100
"""Priorities go from this far below 0 to this far above."""
GROUPS_MAX = 256
BACKOFF_MS_MAX = 24 * 3_600_000
SUCCEEDED, FAILED, ENDED = "succeeded", "failed", "ended"
NEED_ENDS = (SUCCEEDED, FAILED, ENDED)
EXIT = "exit"
"""``Need.when`` where exit codes are asked for."""
EXIT_CODE_MAX = 255
"""Of a process (wait(2)); a signal ``n`` reads as ``128 + n``."""
JOB_ID = re.compile(r"j[a-z2-7]{19}")
"""The form of a job's id: it names rows, files and attempts."""
CONTINUE, FAIL_FAST = "continue", "fail-fast"
FAILURE_WAYS = (CONTINUE, FAIL_FAST)
NO_NETWORK = "none"
NETWORKS = ("host", NO_NETWORK)
WEBHOOK_ALLOW = ("http://127.0.0.1:*", "http://[::1]:*", "http://localhost:*")
"""What a node lets jobs call that does not say more: services of its own loopback."""

OWN_FIELDS = ("index", "job", "task", "attempt")
"""What every task knows of itself, in ``${...}`` and as environment variables."""

_JOB_NAME = re.compile(r"\w(?:[\w .\-]*[\w.\-])?")
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DURATION = re.compile(r"([1-9][0-9]{0,11})(ms|s|m|h)")
_SIZE = re.compile(r"([1-9][0-9]{0,15})(B|KiB|MiB|GiB|TiB)")
_UNIT_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_KEEP = re.compile(r"([1-9][0-9]{0,6})([mhd])")
_KEEP_UNIT_S = {"m": 60, "h": 3_600, "d": 86_400}
KEEP_S_MAX = 3_650 * 86_400
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one value, and what to do."""

    what: str
    hint: str = ""


def job_name_fault(name: str) -> Fault | None:
    if len(name) > JOB_NAME_CHARACTERS_MAX or not _JOB_NAME.fullmatch(name) or not name.isprintable():
        return Fault(
            f"{shown(name)} is no job name",
            f"up to {JOB_NAME_CHARACTERS_MAX} letters, digits, '_', '-', '.' and inner spaces",
        )
    return None


def task_name_fault(name: str) -> Fault | None:
    if len(name) > TASK_NAME_CHARACTERS_MAX or not _TASK_NAME.fullmatch(name):
        return Fault(
            f"{shown(name)} is no task name",
            f"up to {TASK_NAME_CHARACTERS_MAX} letters, digits, '_' and '-', a letter or digit first",
        )
    return None


def field_name_fault(name: str) -> Fault | None:
    """Judges the name of an array's field; it becomes an environment variable too."""
    if name in OWN_FIELDS:
        return Fault(f"{name!r} is a field that every task has already", "take another name")
    if len(name) > TASK_NAME_CHARACTERS_MAX or not _FIELD_NAME.fullmatch(name):
        return Fault(f"{shown(name)} is no field name", "lower-case letters, digits and '_', a letter first")
    return None


def env_name_fault(name: str) -> Fault | None:
    if name in OWN_FIELDS or name.startswith("MESHPEER_"):
        return Fault(f"{shown(name)} is set by meshpeer itself", "take another name")
    if not _ENV_NAME.fullmatch(name):
        return Fault(f"{shown(name)} is no variable name", "letters, digits and '_', no digit first")
    return None


def secret_name_fault(name: str) -> Fault | None:
    """Judges the name of a secret, which is the variable that a task finds it in."""
    fault = env_name_fault(name)
    if fault is None and len(name) > TASK_NAME_CHARACTERS_MAX:
        return Fault(f"{shown(name)} is no name of a secret", f"up to {TASK_NAME_CHARACTERS_MAX} characters")
    return fault


def text_fault(text: str, *, bytes_max: int) -> Fault | None:
    """Judges text that ends up in a process or a path: no NUL, no half characters, not endless."""
    if "\0" in text:
        return Fault("it contains a NUL character", "no program can be given one")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return Fault("it contains half of a character (a lone surrogate)", "write the character itself")
    if size > bytes_max:
        return Fault(f"it has {size:,} bytes, and {bytes_max:,} are allowed", "put it into a file of the job")
    return None


def relative_path(path: str) -> str | Fault:
    """Returns the path without ``.``, doubled or trailing slashes (empty for ``.``), or why it is not
    allowed.

    A path stays inside its folder whatever stands there: absolute ones and any ``..`` are refused, even
    harmless ones.
    """
    if not path:
        return Fault("it is empty", "write a path, such as out/picture.png")
    fault = text_fault(path, bytes_max=PATH_BYTES_MAX)
    if fault is not None:
        return fault
    if any(character < " " or character == "\x7f" for character in path):
        return Fault(f"{shown(path)} contains a control character", "rename the file")
    if path.startswith("/"):
        return Fault(f"{shown(path)} is absolute", "write it relative to the folder, without the first '/'")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        return Fault(f"{shown(path)} climbs out of the folder", "write it without '..'")
    if any(len(part.encode("utf-8")) > PATH_PART_BYTES_MAX for part in parts):
        return Fault(f"a name in {shown(path)} is longer than {PATH_PART_BYTES_MAX} bytes", "shorten it")
    return "/".join(parts)


def output_pattern(pattern: str) -> str | Fault:
    """Returns the pattern in its normal form (a folder keeps its last slash), or why it is not allowed."""
    path = relative_path(pattern)
    if isinstance(path, Fault):
        return path
    if not path:
        return Fault(f"{shown(pattern)} is the whole scratch folder", "name the files, or a folder in it")
    if "${" in path:
        return Fault(f"{shown(pattern)}: outputs are not expanded", "match it with '*', as in frame-*.png")
    return path + "/" if pattern.endswith(("/", "/.")) else path


def duration_ms(text: str) -> int | Fault:
    """Parses ``500ms``, ``90s``, ``10m`` or ``2h`` to milliseconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return Fault(f"{shown(text)} is no duration", "write a number and ms, s, m or h, such as 90s or 10m")
    duration = int(match[1]) * _UNIT_MS[match[2]]
    if duration > TIMEOUT_MS_MAX:
        return Fault(f"{text} is more than a year", "leave it out for no limit")
    return duration


def keep_seconds(text: str) -> int | Fault:
    """Parses ``12h`` or ``30d`` to seconds."""
    match = _KEEP.fullmatch(text)
    if match is None:
        return Fault(f"{shown(text)} is no time to keep results", "write a number and m, h or d, such as 30d")
    seconds = int(match[1]) * _KEEP_UNIT_S[match[2]]
    if seconds > KEEP_S_MAX:
        return Fault(f"{text} is more than ten years", "fetch what is to stay that long")
    return seconds


def size_bytes(text: str) -> int | Fault:
    """Parses ``512MiB`` or ``2GiB`` to bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return Fault(f"{shown(text)} is no size", "write a number and KiB, MiB or GiB, such as 512MiB")
    size = int(match[1]) * _UNIT_BYTES[match[2]]
    if size > SIZE_BYTES_MAX:
        return Fault(f"{text} is more than any machine has", "leave it out for no limit of its own")
    return size


def size_text(size: int, gap: str = "") -> str:
    """Returns a size as it would be written in a job file, in the largest unit that divides it; in a sentence
    with a ``gap``."""
    unit = next(unit for unit in reversed(_UNIT_BYTES) if size % _UNIT_BYTES[unit] == 0)
    return f"{size // _UNIT_BYTES[unit]}{gap}{unit}"


def number_fault(number: int, least: int, most: int) -> Fault | None:
    if not least <= number <= most:
        return Fault(f"{number} is out of range", f"{least} to {most:,}")
    return None


def shown(text: str) -> str:
    """Returns the text quoted for an error, shortened where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
