"""Makes an environment that holds a wheel and what it needs, without a network.

What a wheel needs is installed in this environment already: it is packed into wheels again, and pip takes
those. Whatever the wheel forgot to name is then not there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from deb import closure, read_metadata

CHECKOUT = Path(__file__).resolve().parents[2]
BOUND_S = 110


def build(folder: Path, what: str) -> Path:
    """Builds ``wheel`` or ``sdist`` of the checkout into the folder, at the time of its last commit."""
    asked = ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]
    at_s = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    _run(
        [
            sys.executable,
            "-m",
            "build",
            f"--{what}",
            "--no-isolation",
            "--outdir",
            str(folder),
            str(CHECKOUT),
        ],
        SOURCE_DATE_EPOCH=at_s,
    )
    (made,) = folder.iterdir()
    return made


def make_environment(wheel: Path, folder: Path) -> Path:
    """Makes an empty environment and has pip install the wheel and what it names; returns its folder."""
    house = folder / "house"
    house.mkdir()
    for name in closure(read_metadata(wheel)):
        _pack(metadata.distribution(name), house)
    environment = folder / "environment"
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--isolated"]
    _run(
        [*pip, "install", "--quiet", "--no-compile", "--no-index", "--find-links", str(house), str(wheel)],
        PIP_NO_INDEX="1",
    )
    return environment


def _pack(one: metadata.Distribution, house: Path) -> None:
    """Packs an installed distribution into a wheel again, but for its programs, which pip writes anew."""
    tags = [tag.split("-") for tag in re.findall(r"^Tag: (.*)$", one.read_text("WHEEL") or "", re.MULTILINE)]
    fits = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    name = re.sub(r"[-.]", "_", one.metadata["Name"])
    with ZipFile(house / f"{name}-{one.version}-{fits}.whl", "w") as archive:
        for file in one.files or ():
            path = Path(str(one.locate_file(file)))
            if ".." not in file.parts and "__pycache__" not in file.parts and path.is_file():
                archive.write(path, str(file))


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
