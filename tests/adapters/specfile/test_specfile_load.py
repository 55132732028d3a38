"""Whole job files from disk: formats, the files that a job carries, and the examples of the docs."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zlib
from collections.abc import Container
from pathlib import Path
from types import SimpleNamespace

import pytest

from meshpeer.adapters.specfile import LoadedJob, load_job, load_text
from meshpeer.adapters.specfile.load import JOB_FILE_BYTES_MAX, load_files
from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import Digest, JobId, TaskIndex
from meshpeer.core.jobs.dag import Graph
from meshpeer.core.jobs.expand import argv_of, env_of
from meshpeer.core.jobs.model import FileRef
from meshpeer.core.jobs.problems import InvalidJob, describe_errors
from meshpeer.core.wire.limits import BLOB_BYTES_MAX

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
YAML = b"name: x\ntasks:\n  a: {run: [echo, hi]}\n  b: {needs: [a], array: 0-2, run: 'echo $index'}\n"
JSON = b"""{"name": "x", "tasks": {
"a": {"run": ["echo", "hi"]},
"b": {"needs": ["a"], "array": "0-2", "run": "echo $index"}}}
"""
TOML = b"""name = "x"
[tasks]
a = {run = ["echo", "hi"]}
[tasks.b]
needs = ["a"]
array = 3
run = "echo $index"
"""


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    specs = [
        load(tmp_path, name, data).spec
        for name, data in (("a.yaml", YAML), ("a.json", JSON), ("a.toml", TOML))
    ]
    assert specs[0] == specs[1] == specs[2]


@pytest.mark.parametrize("data", [YAML, JSON, TOML, b"# a comment\n" + TOML, b"\xef\xbb\xbf" + YAML])
def test_standard_input_is_recognised_by_its_beginning(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    loaded = load_job("-")
    assert [task.name for task in loaded.spec.tasks] == ["a", "b"]
    assert loaded.source_name == "stdin"


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        (
            "a.yaml",
            b"name: x\ntasks:\n  a: {run: [x, 3]}\n",
            "a.yaml:3:16: tasks.a.run[1]: 3 is a number here",
        ),
        (
            "a.json",
            b'{"name": "x",\n "tasks": {"a": {"run": 3}}}',
            "a.json:2:25: tasks.a.run: 3 is a number here",
        ),
        (
            "a.toml",
            b'name = "x"\n[tasks.a]\nrun = ["x", 3]\n',
            "a.toml:3:1: tasks.a.run[1]: 3 is a number here",
        ),
        (
            "a.toml",
            b'name = "x"\n[tasks.a]\nrun = "x"\ncmd = 1\n',
            "a.toml:4:1: tasks.a.cmd: unknown field 'cmd'",
        ),
        ("a.yaml", b"name: \xff\n", "a.yaml:1:7: the file is not UTF-8"),
        ("a.yaml", b"", "a.yaml:1:1: the file is empty"),
        ("a.yaml", b"{" * 50, "a.yaml:1:33: it nests deeper than 32"),
    ],
)
def test_errors_name_line_and_field_in_every_format(
    name: str, data: bytes, line: str, tmp_path: Path
) -> None:
    assert errors(tmp_path, name, data)[0].startswith(line)


def test_all_errors_of_the_file_and_of_its_files_come_together(tmp_path: Path) -> None:
    data = b"name: x\nfiles: [gone.py]\ntasks:\n  a: {run: [x], neds: []}\n  b: {run: [1]}\n"
    assert errors(tmp_path, "a.yaml", data) == [
        f"a.yaml:2:9: files[0]: 'gone.py' does not exist in {tmp_path} (check the path)",
        "a.yaml:4:17: tasks.a.neds: unknown field 'neds' (did you mean 'needs'?)",
        'a.yaml:5:13: tasks.b.run[0]: 1 is a number here, and must be text (quote it: "1")',
    ]


def test_a_job_file_is_bounded(tmp_path: Path) -> None:
    assert errors(tmp_path, "a.yaml", b" " * (JOB_FILE_BYTES_MAX + 1)) == [
        "a.yaml: the job file is larger than 16 MiB (put its data into a file of the job)"
    ]


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_a_job_file_that_cannot_be_read_is_the_callers_fault(name: str, tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="can't be read"):
        load_job(str(tmp_path / name))


def test_files_are_hashed_and_folders_expanded(tmp_path: Path) -> None:
    put(tmp_path / "run.sh", b"#!/bin/sh\n").chmod(0o755)
    put(tmp_path / "assets/b.txt", b"b")
    put(tmp_path / "assets/deep/a.txt", b"")
    loaded = load(tmp_path, "a.yaml", with_files("[run.sh, assets/, ./assets/b.txt]"))
    assert loaded.spec.files == (
        ref("assets/b.txt", b"b"),
        ref("assets/deep/a.txt", b""),
        ref("run.sh", b"#!/bin/sh\n", executable=True),
    )
    assert loaded.sources == {file.path: tmp_path / file.path for file in loaded.spec.files}


def test_links_are_followed_only_inside_the_folder(tmp_path: Path) -> None:
    home = tmp_path / "job"
    put(tmp_path / "secret", b"s")
    put(home / "own/real", b"r")
    (home / "inside").symlink_to("own/real")
    (home / "own/outside").symlink_to(tmp_path / "secret")
    (home / "own/loop").symlink_to("../own")
    (home / "up").symlink_to("..")
    assert load(home, "a.yaml", with_files("[inside]")).spec.files == (ref("inside", b"r"),)
    assert errors(home, "a.yaml", with_files("[own/, up/, up/secret, own/outside]")) == [
        "a.yaml:2:9: files[0]: 'own/loop' is a link to a folder (copy the folder, or name its files)",
        f"a.yaml:2:9: files[0]: 'own/outside' {LEADS_OUT}",
        f"a.yaml:2:15: files[1]: 'up' {LEADS_OUT}",
        f"a.yaml:2:20: files[2]: 'up/secret' {LEADS_OUT}",
        f"a.yaml:2:31: files[3]: 'own/outside' {LEADS_OUT}",
    ]


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    put(tmp_path / "render.py", b"")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(BLOB_BYTES_MAX + 1)
    assert errors(tmp_path, "a.yaml", with_files("[pipe, empty, rendr.py, render.py/, huge]")) == [
        "a.yaml:2:9: files[0]: 'pipe' is neither a file nor a folder (name regular files)",
        "a.yaml:2:15: files[1]: the folder 'empty' has no files (put files in, or remove it from the list)",
        f"a.yaml:2:22: files[2]: 'rendr.py' does not exist in {tmp_path} (did you mean 'render.py'?)",
        "a.yaml:2:32: files[3]: 'render.py' is a file, not a folder (write render.py)",
        "a.yaml:2:44: files[4]: 'huge' is larger than 64 MiB (a file of a job has at most 64 MiB for now)",
    ]


def test_files_of_a_command_follow_the_same_rules(tmp_path: Path) -> None:
    put(tmp_path / "a/b", b"x")
    assert load_files(["a/"], tmp_path) == ((ref("a/b", b"x"),), {"a/b": tmp_path / "a/b"})
    with pytest.raises(InvalidJob) as caught:
        load_files(["a/b", "../x", "gone"], tmp_path)
    assert [error.field for error in caught.value.errors] == ["files[1]", "files[2]"]


@pytest.mark.parametrize(("name", "tasks"), [("render.yaml", 26), ("sweep.yaml", 13), ("placement.yaml", 10)])
def test_the_examples_are_valid(name: str, tasks: int) -> None:
    loaded = load_job(str(EXAMPLES / name))
    assert len(Graph.of(loaded.spec)) == tasks
    assert all(source.is_file() for source in loaded.sources.values())


def test_the_sweep_example_runs_to_its_table(tmp_path: Path) -> None:
    output = run_serially(load_job(str(EXAMPLES / "sweep.yaml")), tmp_path)
    assert len(output.splitlines()) == 12
    assert (tmp_path / "best.txt").read_text() == output


def test_strips_of_the_render_example_join_to_one_picture(tmp_path: Path) -> None:
    output = run_serially(load_job(str(EXAMPLES / "render.yaml")), tmp_path, elements=(11, 12))
    assert output.splitlines()[0].startswith("out/poster.png: 120x634 of 2 strips; ")
    width, height, rows = read_png((tmp_path / "out/poster.png").read_bytes())
    assert (width, height) == (120, 634)
    assert all(len(set(rows[row])) > 1 for row in (10, 200, 300, 400, 610))
    assert (tmp_path / "out/day.png").read_bytes().count(b"fcTL") == 2


LEADS_OUT = "is a link that leads out of the job's folder (copy the file into the folder)"


def load(folder: Path, name: str, data: bytes) -> LoadedJob:
    return load_text(data, source_name=name, folder=folder)


def errors(folder: Path, name: str, data: bytes) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        load(folder, name, data)
    return describe_errors(caught.value.errors, caught.value.source_name)


def with_files(files: str) -> bytes:
    return f"name: x\nfiles: {files}\ntasks: {{a: {{run: ls}}}}\n".encode()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ref(path: str, data: bytes, *, executable: bool = False) -> FileRef:
    digest = Digest(hashlib.sha256(data).digest())
    return FileRef(path=path, digest=digest, size=len(data), executable=executable)


def run_serially(loaded: LoadedJob, scratch: Path, elements: Container[int] = range(100)) -> str:
    """Runs the tasks (of arrays, these elements) in one folder; returns what the last one printed."""
    for path, source in loaded.sources.items():
        put(scratch / path, source.read_bytes())
    graph = Graph.of(loaded.spec)
    output = ""
    for task in map(TaskIndex, range(len(graph))):
        spec, element, task_id = graph.spec_of(task), graph.element_of(task), graph.id_of(task)
        if element is not None and element not in elements:
            continue
        base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        env = {**base, **dict(env_of(spec, element, JobId("j0"), task_id, 1, base))}
        argv = argv_of(spec, element, JobId("j0"), task_id, 1)
        done = subprocess.run(argv, cwd=scratch, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        output = done.stdout
    return output


def read_png(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and the filtered rows of an 8-bit RGB picture."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    packed, at = b"", 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        assert zlib.crc32(data[at + 4 : at + 8 + size]) == int.from_bytes(
            data[at + 8 + size : at + 12 + size], "big"
        )
        packed += data[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    plain = zlib.decompress(packed)
    stride = 1 + 3 * width
    assert len(plain) == stride * height
    return width, height, [plain[row * stride : (row + 1) * stride] for row in range(height)]
