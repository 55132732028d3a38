"""Which Python runs functions, what it is asked, and the kit that goes along with a call."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import cloudpickle
import pytest
import trio

from meshpeer.adapters.interpreter import TaskInterpreter, runner
from meshpeer.adapters.interpreter.interpreter import ask_version
from meshpeer.adapters.interpreter.kit import kit
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.jobs.calls import HEAD_BYTES, ROW_BYTES, encode_calls

SYSTEM = "/usr/bin/python3"
MINE = sys.version_info[:2]


@pytest.mark.parametrize(
    ("name", "version"), [("python3.11", "3.11"), ("python3.9", "3.9"), ("python3", ""), ("pypy3.10", "")]
)
def test_a_version_is_read_off_the_name_that_a_program_really_has(
    tmp_path: Path, name: str, version: str
) -> None:
    (tmp_path / "real").mkdir()
    program = tmp_path / "real" / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "python3").symlink_to(program)
    assert TaskInterpreter("", str(tmp_path)).likely_version() == version
    assert TaskInterpreter(str(program), "").likely_version() == version
    assert TaskInterpreter("", "/nonexistent").likely_version() == ""


async def test_the_first_python_in_the_path_is_asked_once(tmp_path: Path) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    asked: list[str] = []
    interpreter = TaskInterpreter("", f"/nonexistent:{tmp_path}", lambda one: asked.append(one) or "3.11")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(interpreter.find)
    found = [await interpreter.find()]
    assert asked == [str(program)]
    program.unlink()
    program.write_text("#!/bin/sh\n# another\n")
    program.chmod(0o755)
    again = await interpreter.find()

    assert {(one.program, one.version) for one in (*found, again)} == {(str(program), "3.11")}
    assert asked == [str(program)] * 2


async def test_a_node_without_python_says_what_to_do(tmp_path: Path) -> None:
    for named, what in (("", "no python3 for tasks"), ("/nonexistent/python3", "is not there")):
        with pytest.raises(EnvironmentFault, match=what) as caught:
            await TaskInterpreter(named, str(tmp_path)).find()
        assert "python under [jobs]" in caught.value.hint


def test_an_interpreter_says_its_version_and_others_are_refused() -> None:
    assert ask_version(SYSTEM).startswith("3.")
    with pytest.raises(EnvironmentFault, match="no Python 3 that works"):
        ask_version("/bin/true")
    with pytest.raises(EnvironmentFault, match="can't be run"):
        ask_version("/etc/passwd")


def test_the_kit_is_the_same_for_the_same_sources() -> None:
    first = kit()
    kit.cache_clear()
    assert kit() == first
    names = zipfile.ZipFile(BytesIO(first)).namelist()
    assert {"__main__.py", "__main__.pyc", "cloudpickle/cloudpickle.py"} <= set(names)


def test_the_runner_can_be_read_by_pythons_that_are_older_than_the_agents() -> None:
    ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 8))


class Run:
    """The kit in a folder, as a worker stages it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".meshpeer").mkdir()
        (folder / ".meshpeer/kit.pyz").write_bytes(kit())

    def __call__(self, call: bytes, form: str = "json", program: str = sys.executable) -> tuple[int, str]:
        """Returns exit code and stderr."""
        (self.folder / ".meshpeer/call").write_bytes(call)
        ended = subprocess.run(
            [program, ".meshpeer/kit.pyz", ".meshpeer/call", form, "results/t.out", "results/t.error"],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stderr.decode()

    @property
    def result(self) -> bytes:
        return (self.folder / "results/t.out").read_bytes()

    @property
    def report(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "results/t.error").read_text())
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def pickled(function: object, *args: object, python: tuple[int, int] = MINE, version: str = "") -> bytes:
    """A call as a worker cuts it out."""
    parts = cloudpickle.dumps(function), cloudpickle.dumps((args, {}))
    data = encode_calls(python, version or cloudpickle.__version__, [parts])
    return data[: HEAD_BYTES + ROW_BYTES] + b"".join(parts)


def test_a_named_function_is_called_in_whatever_python(run: Run) -> None:
    call = json.dumps({"call": "os.path:join", "args": ["a", "b"]}).encode()
    for program in (sys.executable, SYSTEM):
        assert run(call, program=program) == (0, "")
        assert run.result == b'"a/b"'


def test_a_pickled_function_gets_its_arguments_and_hands_its_value_back(run: Run) -> None:
    assert run(pickled(lambda a, b: {"sum": a + b}, 1, 2), "pickle") == (0, "")
    assert pickle.loads(run.result) == {"sum": 3}


def test_what_a_function_prints_is_there_at_once(run: Run) -> None:
    def say() -> None:
        print("said")
        os._exit(3)

    (run.folder / ".meshpeer/call").write_bytes(pickled(say))
    command = [sys.executable, ".meshpeer/kit.pyz", ".meshpeer/call", "json", "r", "e"]
    ended = subprocess.run(command, cwd=run.folder, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"said\n")


def test_a_function_that_closes_its_streams_is_reported_all_the_same(run: Run) -> None:
    def fail() -> None:
        sys.stdout.close()
        sys.stderr.close()
        raise ValueError(sys.argv[1:])

    code, said = run(pickled(fail))
    assert (code, said, run.report["message"]) == (1, "", "[]")


def test_versions_are_checked_before_anything_is_unpickled(run: Run) -> None:
    poison = b"\x80\x05cposix\n_exit\n(K\x07tR."
    for python, version, what in (
        ((2, 7), "", "pickled by Python 2.7, and this is Python"),
        (MINE, "0.1", "pickled by cloudpickle 0.1, and here is"),
    ):
        head = pickled(abs, 1, python=python, version=version)[: HEAD_BYTES + ROW_BYTES]
        code, said = run(head + poison)
        assert code == 1
        assert what in said
        assert "Traceback" not in said


def test_what_a_function_raises_is_reported_with_its_traceback_alone(run: Run) -> None:
    code, said = run(json.dumps({"call": "json:loads", "args": ["{"]}).encode(), "pickle")
    assert (code, run.report["type"]) == (1, "JSONDecodeError")
    assert run.report["traceback"] == said
    assert "_value_of" not in said
    assert isinstance(
        pickle.loads(__import__("base64").b64decode(run.report["pickle"])), json.JSONDecodeError
    )


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ({"call": "no_such.thing:f"}, "there is no module no_such"),
        ({"call": "os:no.such"}, "there is no no.such in os"),
        ({"call": "os:name"}, "name in os is no function"),
        ({"call": "builtins:object"}, "returned what JSON has not (object)"),
        ({"call": "builtins:float", "args": ["nan"]}, "returned what JSON has not (float)"),
    ],
)
def test_what_can_not_be_called_or_handed_back_is_one_line(
    run: Run, call: dict[str, object], what: str
) -> None:
    code, said = run(json.dumps(call).encode())
    assert code == 1
    assert what in said
    assert said.count("\n") == 1
    assert run.report["message"] == said.strip()
