"""What is taken from a real folder is what the pure rule selects; a task reaches the helper unchanged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshpeer.adapters.executor.collecting import OutputFault, collect_outputs
from meshpeer.adapters.executor.helper import pack_task, unpack_task
from meshpeer.core.ids import Digest
from meshpeer.core.jobs.outputs import path_selected
from meshpeer.runtime.ports import BlobRef

NAMES = st.sampled_from(["a", "b", "ab", ".a", "a[b]", "a*", "ü"])
PARTS = st.sampled_from(["a", "b", "ab", "*", "a*", "?", ".*", "[ab]", "a[b]", "**"])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=8)
PATTERNS = st.builds(
    lambda parts, folder: "/".join(parts) + ("/" if folder else ""),
    st.lists(PARTS, min_size=1, max_size=3),
    st.booleans(),
)


@example(tree={"a/a/a", "b/a"}, patterns=["*/a"])
@example(tree={"a/a", "b/a/b"}, patterns=["*/a/b"])
@settings(max_examples=150, deadline=None)
@given(tree=TREES, patterns=st.lists(PATTERNS, min_size=1, max_size=2))
def test_files_taken_are_those_that_the_patterns_select(tree: set[str], patterns: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(path for path in tree if make_file(Path(folder) / path))

        taken = trio.run(collect, folder, patterns)

    chosen = [[path for path in files if path_selected(pattern, path)] for pattern in patterns]
    assert taken == (sorted({path for paths in chosen for path in paths}) if all(chosen) else None)


TEXTS = st.binary().map(lambda text: text.replace(b"\0", b""))
ENV_NAMES = TEXTS.map(lambda text: b"N" + text.replace(b"=", b""))


@given(folder=TEXTS, argv=st.lists(TEXTS, min_size=1), env=st.dictionaries(ENV_NAMES, TEXTS))
def test_task_reaches_the_helper_unchanged(folder: bytes, argv: list[bytes], env: dict[bytes, bytes]) -> None:
    assert unpack_task(pack_task(folder, argv, env, (1, 0, 2**40))) == (folder, argv, env, [1, 0, 2**40])


def make_file(path: Path) -> bool:
    """Makes the file unless another path of the tree needs a folder (or has a file) in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError):
        return False
    return True


async def collect(folder: str, patterns: Sequence[str]) -> list[str] | None:
    """Returns the paths that were taken, or None where nothing was."""
    work = os.open(folder, os.O_RDONLY)
    try:
        return [file.path for file in await collect_outputs(work, patterns, None, Forgetful())]  # type: ignore[arg-type]
    except OutputFault:
        return None
    finally:
        os.close(work)


class Forgetful:
    async def add_bytes(self, data: bytes) -> BlobRef:
        return BlobRef(digest=Digest(bytes(32)), size=len(data))
