"""Jobs that can't be are refused by submit and by validate alike, with where and why; nothing is taken in."""

from __future__ import annotations

from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab, Node

from meshpeer.runtime.control import Job

pytestmark = pytest.mark.netns

USAGE = 2
BAD = {
    "cycle": ("{a: {run: 'true', needs: [b]}, b: {run: 'true', needs: [a]}}", "a -> b -> a"),
    "self": ("{a: {run: 'true', needs: [a]}}", "'a' needs itself"),
    "unknown-need": ("{split: {run: 'true'}, b: {run: 'true', needs: [spilt]}}", "split"),
    "wrong-type": ("{a: {run: 'true', retries: many}}", "retries"),
    "unknown-field": ("{a: {run: 'true', retrys: 1}}", "retries"),
    "number-in-argv": ("{a: {run: [sleep, 5]}}", '"5"'),
    "no-tasks": ("{}", "task"),
    "too-many-tasks": ("{a: {run: 'true', array: 0-100000}}", "100,001"),
    "too-many-in-sum": ("{a: {run: 'true', array: 0-99999}, b: {run: 'true'}}", "100,001"),
}


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan("alpha")) as lab:
        meshkit.found(lab.node("alpha"))
        yield lab


@pytest.fixture
def alpha(shared: Lab) -> Iterator[Node]:
    node = shared.node("alpha")
    yield node
    assert meshkit.ask(node, list[Job], "jobs", "list") == []
    assert meshkit.status(node).health == "ok"


@pytest.mark.parametrize("command", ["submit", "validate"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_job_is_refused_with_its_place(alpha: Node, kind: str, command: str) -> None:
    tasks, named = BAD[kind]
    alpha.put_file("/run/jobs/bad.yaml", f"name: bad\ntasks: {tasks}\n")
    failure = meshkit.fails(alpha, USAGE, "jobs", command, "/run/jobs/bad.yaml")
    assert "bad.yaml" in failure.what
    assert named in f"{failure.what} {failure.hint}"


def test_every_error_of_a_job_has_its_line(alpha: Node) -> None:
    tasks = "  a: {run: [1]}\n  b: {needs: [zulu], run: 'true'}\n  c: {retries: -1, run: 'true'}\n"
    alpha.put_file("/run/jobs/worse.yaml", f"name: worse\ntasks:\n{tasks}")
    done = alpha.run(["meshpeer", "jobs", "submit", "/run/jobs/worse.yaml"], check=False)
    *places, what, hint = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert {line.split(":")[1] for line in places if line.startswith("/run/jobs/worse.yaml:")} == {
        "3",
        "4",
        "5",
    }
    assert what.startswith("error: ")
    assert hint.startswith(" hint: ")


def test_a_missing_file_and_an_unknown_job_are_named(alpha: Node) -> None:
    assert "/run/none.yaml" in meshkit.fails(alpha, USAGE, "jobs", "submit", "/run/none.yaml").what
    alpha.put_file("/run/jobs/files.yaml", "name: f\nfiles: [gone.py]\ntasks: {a: {run: 'true'}}\n")
    assert "gone.py" in meshkit.fails(alpha, USAGE, "jobs", "submit", "/run/jobs/files.yaml").what
    for command in ("status", "watch", "tasks", "cancel", "logs"):
        assert "zulu" in meshkit.fails(alpha, USAGE, "jobs", command, "zulu").what


def test_the_largest_job_is_valid(alpha: Node) -> None:
    alpha.put_file("/run/jobs/large.yaml", "name: large\ntasks: {a: {run: 'true', array: 0-99999}}\n")
    assert "100,000 tasks" in meshkit.meshpeer(alpha, "jobs", "validate", "/run/jobs/large.yaml")
