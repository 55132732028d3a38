"""The kit: one file that a task's Python can run, with the runner and cloudpickle in it.

Tasks run as users who can't read the agent's own environment, in a Python that has nothing of it. So what
calls the function goes along with the call: a zip application (PEP 441) of pure Python, read from the
installed packages. Sources are compiled by the agent's Python, too; one of another version passes over that
and compiles them itself (zipimport, "unchecked hash" of PEP 552).
"""

from __future__ import annotations

import functools
import importlib.util
import io
import py_compile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from meshpeer.adapters.interpreter import runner

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The beginning of a zip file's time: the same sources make the same kit."""


@functools.cache
def kit() -> bytes:
    """Returns the kit, made once."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w") as archive:
        for source, name in _sources():
            _add(archive, name, source.read_bytes())
            compiled = Path(folder) / "compiled"
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), str(compiled), dfile=name, doraise=True, invalidation_mode=mode)
            _add(archive, f"{name}c", compiled.read_bytes())
        _add(archive, "cloudpickle_version.py", f"VERSION = {cloudpickle_version()!r}\n".encode())
    return packed.getvalue()


@functools.cache
def cloudpickle_version() -> str:
    """Returns the version of cloudpickle that is in the kit."""
    return metadata.version("cloudpickle")


def _sources() -> list[tuple[Path, str]]:
    found = importlib.util.find_spec("cloudpickle")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    modules = [(one, f"cloudpickle/{one.name}") for one in sorted(package.glob("*.py"))]
    return [(Path(runner.__file__), "__main__.py"), *modules]


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
