"""The wheel alone, in an empty environment and without a network, does what the tutorial does."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from wheelhouse import CHECKOUT, build, make_environment

BOUND_S = 60
Meshpeer = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), "wheel")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it says that it needs."""
    return make_environment(wheel, tmp_path_factory.mktemp("environment"))


def test_wheel_holds_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "meshpeer"], capture_output=True, text=True, check=True
    ).stdout.split()
    others = {one for one in names if not one.startswith("meshpeer/")}

    assert set(tracked) <= names
    assert {"meshpeer/py.typed", "meshpeer/adapters/web/static/main.js"} <= names
    assert {one.split("/")[0] for one in others} == {"meshpeer-0.1.0.dist-info", "meshpeer-0.1.0.data"}
    assert "meshpeer-0.1.0.dist-info/licenses/LICENSE" in names
    shared = {one.split("/data/")[1] for one in others if "/data/" in one}
    assert {"share/man/man1/meshpeer.1", "share/man/man1/meshpeer-jobs.1"} <= shared
    assert {
        "share/bash-completion/completions/meshpeer",
        "share/zsh/site-functions/_meshpeer",
        "share/fish/vendor_completions.d/meshpeer.fish",
    } <= shared
    assert not [one for one in names if "test" in one.lower() or "__pycache__" in one]


def test_same_commit_makes_the_same_wheel_byte_by_byte(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path, "wheel").read_bytes() == wheel.read_bytes()


@pytest.mark.timeout(300)
def test_tutorial_works_with_the_wheel_alone(nodes: dict[str, Meshpeer]) -> None:
    alpha, bravo = nodes["alpha"], nodes["bravo"]
    assert "checkout" not in alpha("--version")

    free = ("--backend", "none", "--control-port", "0", "--detach")
    assert "alpha is ready in the mesh" in alpha("init", "--name", "alpha", *free)
    invite = alpha("invite", "--quiet").strip()
    assert "(2 members)" in bravo("join", invite, "--name", "bravo", *free)

    assert re.search(r"members +2 alive of 2", alpha("status"))
    assert re.search(r"^bravo .* alive", alpha("peers"), re.MULTILINE)
    assert "answered" in alpha("ping", "bravo")
    assert bravo("jobs", "run", "--array", "0-3", "--", "sh", "-c", "echo task $index").count("task") >= 4
    assert "valid" in alpha("jobs", "validate", str(CHECKOUT / "docs/examples/render.yaml"))
    with urllib.request.urlopen(alpha("dashboard", "--quiet").strip(), timeout=BOUND_S) as page:
        assert b"<html" in page.read()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that tasks can pass through as other users; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="mp-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def nodes(environment: Path, folder: Path) -> Iterator[dict[str, Meshpeer]]:
    """``meshpeer`` of that environment, on two machines; agents that were started there are stopped."""

    def machine(name: str) -> Meshpeer:
        home = folder / name
        home.mkdir()
        home.chmod(0o711)
        (home / "meshpeer.toml").write_text("[mesh]\nmdns = false\n")
        variables = {
            "PATH": f"{environment / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "MESHPEER_STATE_DIR": str(home / "state"),
            "MESHPEER_RUN_DIR": str(home / "run"),
            "MESHPEER_CONFIG": str(home / "meshpeer.toml"),
            "MESHPEER_WEB_PORT": str(free_port()),
        }

        def meshpeer(*arguments: str) -> str:
            done = subprocess.run(
                [environment / "bin" / "meshpeer", *arguments],
                env=variables,
                cwd=home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BOUND_S,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        return meshpeer

    made = {name: machine(name) for name in ("alpha", "bravo")}
    yield made
    for name, meshpeer in made.items():
        if (folder / name / "run" / "agent.sock").exists():
            meshpeer("stop")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell_offers_what_the_program_says(
    shell: str, environment: Path, tmp_path: Path
) -> None:
    if not any((Path(folder) / shell).exists() for folder in os.environ["PATH"].split(":")):
        pytest.skip(f"there is no {shell}")
    share = environment / "share"
    lines = {
        "bash": f". {share}/bash-completion/completions/meshpeer; COMP_WORDS=(meshpeer jobs li); "
        'COMP_CWORD=2; _meshpeer meshpeer; printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": "words=(meshpeer jobs li); CURRENT=3; compadd() { print -l ${(P)2} }; _files() {}; "
        f". {share}/zsh/site-functions/_meshpeer",
        "fish": f"source {share}/fish/vendor_completions.d/meshpeer.fish; "
        "complete --do-complete 'meshpeer jobs li'",
    }
    done = subprocess.run(
        [shell, "-c", lines[shell]],
        env={"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    assert done.stdout.split() == ["list"], done.stderr
