"""Keeps the values of secrets out of what an attempt leaves.

stdout and stderr are for people to read, so values that a task printed are overwritten there with asterisks,
as many as there were bytes: offsets of what follows stay. An output file is data, and a changed one would be
worse than none: the attempt fails instead. Whoever encodes a value before writing it gets past both; this is
against slips, and tasks are given only secrets that their submitter may have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

BLOCK_BYTES = 1024 * 1024


def mask(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """Returns the text with every value hidden, of the same length."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, b"*" * len(secret))
    return text


def reach(secrets: Sequence[bytes]) -> int:
    """Returns how far a value may stand out of a window into a text."""
    return max(map(len, secrets), default=1) - 1


def mask_file(descriptor: int, secrets: Sequence[bytes]) -> None:
    """Hides every value in an open file; raises ``OSError``."""
    for offset, block in _blocks(descriptor, reach(secrets)):
        masked = mask(block, secrets)
        if masked != block:
            os.pwrite(descriptor, masked, offset)


def holds_secret(descriptor: int, secrets: Sequence[tuple[str, bytes]]) -> str:
    """Returns the name of a secret whose value stands in an open file, or nothing; raises ``OSError``."""
    for _, block in _blocks(descriptor, reach([value for _, value in secrets])):
        for name, value in secrets:
            if value in block:
                return name
    return ""


def _blocks(descriptor: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yields offsets and content; each block begins within the one before, so that no value is cut in two."""
    offset = 0
    while block := os.pread(descriptor, BLOCK_BYTES + overlap, offset):
        yield offset, block
        offset += BLOCK_BYTES
