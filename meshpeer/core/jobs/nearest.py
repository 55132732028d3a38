"""Suggestions for a misspelt word: one rule for every place that says "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

CANDIDATES_MAX = 2_000
"""Words that one search compares, the first ones: a typo in a huge job stays cheap."""


def nearest(word: str, candidates: Iterable[str], *, count: int = 1) -> tuple[str, ...]:
    """Returns up to ``count`` candidates that look like ``word``, best first; none where none is close."""
    close = difflib.get_close_matches(word, list(islice(candidates, CANDIDATES_MAX)), n=count, cutoff=0.6)
    return tuple(close)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Returns ``did you mean 'split'?``, or an empty text where nothing is close."""
    found = nearest(word, candidates)
    return f"did you mean {found[0]!r}?" if found else ""
