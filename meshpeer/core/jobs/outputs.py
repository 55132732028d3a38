"""Which files of a scratch folder a task's ``outputs`` name.

A pattern is a path, a path with wildcards, or a folder (with a trailing slash, all that is under it).
Wildcards are those of fnmatch within one name; they never cross a slash, and ``*`` passes hidden names by, as
in a shell. A name that stands there exactly as written is meant literally, so ``frame[1].png`` needs no
escape.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from meshpeer.core.jobs.rules import FILES_MAX, Fault, relative_path, shown
from meshpeer.core.wire.limits import BLOB_BYTES_MAX

OUTPUT_FILES_MAX = FILES_MAX
"""Files that one attempt's outputs may come to: what a job's inputs may."""


def has_wildcard(part: str) -> bool:
    return any(character in part for character in "*?[")


def name_selected(part: str, name: str) -> bool:
    """Says whether one part of a pattern selects one name in a folder."""
    if part == name:
        return True
    if name.startswith(".") and not part.startswith("."):
        return False
    return has_wildcard(part) and fnmatchcase(name, part)


def path_selected(pattern: str, path: str) -> bool:
    """Says whether a pattern selects the file at ``path``; both in the normal form of ``jobs.rules``."""
    parts = [part for part in pattern.split("/") if part]
    names = path.split("/")
    if pattern.endswith("/"):
        if len(names) <= len(parts):
            return False
    elif len(names) != len(parts):
        return False
    return all(name_selected(part, name) for part, name in zip(parts, names, strict=False))


def missing_error(pattern: str) -> str:
    return f"output {pattern!r} is missing"


def file_error(path: str, size: int) -> str:
    """Returns why a file can't be an output, or nothing: other nodes must be able to name it and to hold
    it."""
    fault = relative_path(path)
    if isinstance(fault, Fault):
        return f"output {shown(path)}: {fault.what}"
    if size > BLOB_BYTES_MAX:
        return f"output {shown(path)} has {size:,} bytes, and {BLOB_BYTES_MAX:,} are allowed"
    return ""


def count_error(count: int) -> str:
    if count > OUTPUT_FILES_MAX:
        return f"the outputs are more than {OUTPUT_FILES_MAX:,} files"
    return ""


def secret_error(path: str, secret: str) -> str:
    """Returns the error of an output that holds the value of a secret."""
    return f"output {shown(path)} holds the secret {secret}, and was not kept"
