"""What a target is, and what one case of it may do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshpeer.core.errors import MeshpeerError

CASE_CPU_S_MAX = 2.0
"""Processor time of one case; the slowest honest one takes a hundredth. Not the clock's: others work, too."""
CASE_BYTES_MAX = 64 * 1024 * 1024
"""What a case may hold at once, beyond what was held before it."""
CORPUS = Path(__file__).resolve().parents[1] / "corpus"

Mutator = Callable[[bytes, int, random.Random], bytes]
"""Makes another case of a case: at most so many bytes, by these dice."""


class Hang(AssertionError):
    """A case took more processor time than any may."""


class Unshown(AssertionError):
    """A refusal says nothing, or says it in more than one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One decoder. ``name`` is ``room.what``; the corpus is the folder of that name."""

    name: str
    run: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    """What it may raise; none for one that takes whatever comes."""
    seeds: Callable[[], Sequence[bytes]]
    """Valid cases, made by the code that others make them by: they follow every change of a format."""
    mutate: Mutator | None = None
    """Knows the structure, where random bytes get nowhere; None for plain bytes."""
    bytes_max: int = 2_048
    """Of a case."""


def run_case(target: Target, data: bytes) -> bool:
    """Runs one case; says whether it was refused. Whatever this raises is a bug."""
    began = time.thread_time()
    refused = False
    try:
        target.run(data)
    except target.refusals as error:
        refused = True
        if isinstance(error, MeshpeerError) and not error.what.strip():
            raise Unshown(f"{target.name}: a refusal that says nothing") from error
    took = time.thread_time() - began
    if took > CASE_CPU_S_MAX:
        raise Hang(f"{target.name}: a case of {len(data)} bytes took {took:.1f} s")
    return refused


def kept_cases(target: Target) -> list[bytes]:
    """Returns the files of its corpus: what once crashed it, and what no code here makes."""
    folder = CORPUS / target.name
    return [one.read_bytes() for one in sorted(folder.iterdir())] if folder.is_dir() else []


def all_seeds(target: Target) -> list[bytes]:
    """Returns all that cases are made of."""
    return list(dict.fromkeys([*target.seeds(), *kept_cases(target)]))
