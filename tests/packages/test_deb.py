"""What goes into the Debian package; `scripts/packaging/try_deb` installs a built one."""

from __future__ import annotations

import shutil
import subprocess
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from deb import HERE, closure, pinned
from wheelhouse import CHECKOUT


def test_all_that_meshpeer_needs_is_pinned_by_hash() -> None:
    pins = pinned(CHECKOUT / "constraints.txt")
    needed = closure(_described())

    assert {"trio", "cffi", "cbor2", "pydantic-core"} <= needed
    assert not needed & {"pytest", "sphinx", "ruff", "meshpeer"}
    for name in needed:
        assert pins[name].startswith(f"{name}==")
        assert "--hash=sha256:" in pins[name]


def test_pins_are_taken_with_all_of_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# made\na-b==1 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\nC==2\n")

    assert pinned(file) == {
        "a-b": "a-b==1 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\n",
        "c": "C==2\n",
    }


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_scripts_of_the_package_are_whole_shell_programs(name: str) -> None:
    script = HERE / "debian" / name

    assert script.read_text().startswith("#!/bin/sh\nset -e\n")
    for shell in ("dash", "sh"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(script)], check=True)


def test_nothing_starts_a_node_that_did_not_run() -> None:
    text = (HERE / "debian" / "postinst").read_text()

    assert "try-restart" in text
    assert not [word for word in ("systemctl start", "systemctl enable", "enable --now") if word in text]


def _described() -> Message:
    described = Message()
    for one in metadata.requires("meshpeer") or []:
        if "extra ==" not in one:
            described["Requires-Dist"] = one
    return described
