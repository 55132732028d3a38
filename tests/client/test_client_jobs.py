"""Functions as jobs, through a whole agent: what they return, what they raise, and what is never sent."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from meshpeer.client import Client, Options, RemoteError, Unpicklable, connect, pickling
from meshpeer.client import options as client_options
from meshpeer.core.errors import LocalFault, NotRunning
from meshpeer.core.jobs.calls import encode_calls

HERE = sys.modules[__name__]
LONG_S = 60.0


@dataclasses.dataclass(frozen=True)
class Frame:
    """A value of a class that no worker can import."""

    number: int


class OddError(Exception):
    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"{number}: {why}")
        self.number, self.why = number, why


class WithCode(Exception):
    code = 7


def test_a_function_is_called_once_and_its_value_comes_back(mesh: Client) -> None:
    job = mesh.submit(lambda a, *, b: (a, b, os.getcwd()), {"n": [1]}, b="x")
    first, second, folder = job.result(LONG_S)
    assert (first, second) == ({"n": [1]}, "x")
    assert "/scratch/slot-" in folder
    assert job.status().state == "succeeded"


def test_results_of_a_map_come_in_the_order_of_its_items(mesh: Client) -> None:
    job = mesh.map(lambda a, b: a - b, range(9, 4, -1), range(5))
    assert job.gather(LONG_S) == [9, 7, 5, 3, 1]
    assert {task for task, _ in job.results(LONG_S)} == {f"call[{n}]" for n in range(5)}


def test_chunks_are_tasks_that_make_several_calls_each(mesh: Client) -> None:
    job = mesh.map(lambda n: (n, os.getpid()), range(10), chunks=3)
    found = job.gather(LONG_S)
    assert [number for number, _ in found] == list(range(10))
    assert len({pid for _, pid in found}) == 3
    assert job.status().tasks.total == 3


def test_objects_of_classes_that_only_the_caller_knows_travel_both_ways(mesh: Client) -> None:
    by_value = mesh.using(Options(carry=(HERE,)))
    job = by_value.map(lambda frame: Frame(frame.number + 1), [Frame(1), Frame(2)])
    assert job.gather(LONG_S) == [Frame(2), Frame(3)]


def test_what_a_function_raises_is_the_cause_of_what_the_caller_gets(mesh: Client) -> None:
    def fail() -> None:
        raise WithCode("no luck")

    job = mesh.using(Options(carry=(HERE,))).submit(fail)
    with pytest.raises(RemoteError, match="WithCode: no luck") as caught:
        job.result(LONG_S)
    assert isinstance(caught.value.__cause__, WithCode)
    assert (caught.value.kind, caught.value.task, caught.value.node) == ("WithCode", "call", "alone")
    assert "in fail" in caught.value.traceback
    assert "kit.pyz" not in caught.value.traceback
    assert "WithCode: no luck" in job.logs(stream="stderr")


def test_an_exception_that_can_not_be_made_again_comes_as_text(mesh: Client) -> None:
    def fail() -> None:
        raise OddError(3, "odd")

    with pytest.raises(RemoteError, match="OddError: 3: odd") as caught:
        mesh.using(Options(carry=(HERE,))).submit(fail).result(LONG_S)
    assert caught.value.__cause__ is None


def test_the_other_results_of_a_job_are_there_although_one_failed(mesh: Client) -> None:
    job = mesh.map(lambda n: 6 // n, [3, 0, 2])
    first, failed, last = job.gather(LONG_S, return_exceptions=True)
    assert (first, last) == (2, 3)
    assert isinstance(failed, RemoteError)
    assert isinstance(failed.__cause__, ZeroDivisionError)
    with pytest.raises(LocalFault, match="2 results, not one"):
        mesh.map(abs, [1, 2]).result(LONG_S)


def test_a_task_that_dies_is_an_error_without_a_cause(mesh: Client) -> None:
    with pytest.raises(RemoteError, match="exit code 5") as caught:
        mesh.submit(lambda: os._exit(5)).result(LONG_S)
    assert (caught.value.kind, caught.value.__cause__) == ("", None)
    with pytest.raises(RemoteError, match="timed out after"):
        mesh.using(Options(timeout_s=0.5)).submit(time.sleep, 60).result(LONG_S)
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        mesh.submit(sys.exit, 3).result(LONG_S)


def test_a_function_of_a_module_that_workers_lack_says_so(mesh: Client) -> None:
    with pytest.raises(RemoteError, match="No module named 'unheard_of'") as caught:
        mesh.submit(module_of("unheard_of").double, 2).result(LONG_S)
    assert "Options(carry=...)" in caught.value.hint


def test_files_of_a_call_can_be_read_and_imported(mesh: Client, tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text("def area(a, b):\n    return a * b\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/side").write_text("7")

    def work() -> int:
        from shapes import area  # type: ignore[import-not-found]

        side = Path("data/side").read_text()
        Path("out.txt").write_text("made")
        return int(area(2, int(side)))

    options = Options(files=("shapes.py", "data/"), folder=tmp_path, outputs=("out.txt",), carry=(HERE,))
    job = mesh.using(options).submit(work)
    assert job.result(LONG_S) == 14
    assert job.output("out.txt") == b"made"


def test_options_of_a_call_are_those_of_a_task(mesh: Client) -> None:
    def look() -> tuple[str, list[str], str]:
        devices = Path("/proc/self/net/dev").read_text().splitlines()[2:]
        task = os.environ["MESHPEER_IDEMPOTENCY_KEY"].partition(":")[2]
        return os.environ["COLOUR"], [one.split(":")[0].strip() for one in devices], task

    options = Options(name="look", network="none", env={"COLOUR": "red"}, cpu=2, memory="256MiB", retries=1)
    job = mesh.using(options).submit(look)
    colour, devices, task = job.result(LONG_S)
    assert (colour, [one for one in devices if one.startswith("eth")], task) == ("red", [], "call")
    assert "lo" in devices
    assert job.name == "look"


def test_results_as_json_are_never_unpickled(mesh: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    safe = mesh.using(Options(result="json"))
    monkeypatch.setattr(pickling.pickle, "loads", lambda _: pytest.fail("unpickled"))
    assert safe.map(lambda n: {"n": [n, None]}, [1, 2]).gather(LONG_S) == [{"n": [1, None]}, {"n": [2, None]}]
    with pytest.raises(RemoteError, match="ValueError: invalid literal") as caught:
        safe.submit(lambda: int("bad")).result(LONG_S)
    assert caught.value.__cause__ is None
    with pytest.raises(RemoteError, match=r"returned what JSON has not \(set\)"):
        safe.submit(set, "ab").result(LONG_S)


def test_a_job_that_is_looked_up_is_unpickled_only_where_that_is_asked_for(mesh: Client) -> None:
    made = mesh.map(abs, [2, -3])
    assert made.gather(LONG_S) == [2, 3]
    with pytest.raises(LocalFault, match="returned a pickle"):
        mesh.job(made.id).gather(LONG_S)
    assert mesh.job(made.id, unpickle=True).gather(LONG_S) == [2, 3]


def test_large_results_come_and_too_large_ones_say_so(mesh: Client) -> None:
    assert len(mesh.submit(bytes, 3_000_000).result(LONG_S)) == 3_000_000
    with pytest.raises(RemoteError, match="16777216 are allowed: write it to a file"):
        mesh.submit(bytes, 17_000_000).result(LONG_S)
    with pytest.raises(RemoteError, match="returned can't be pickled"):
        mesh.submit(lambda: (n for n in ())).result(LONG_S)


def test_cancelled_calls_say_so_and_a_wait_that_is_over_leaves_the_job(mesh: Client) -> None:
    job = mesh.submit(time.sleep, 60)
    with pytest.raises(TimeoutError, match="it goes on"):
        job.result(0.3)
    assert job.status().state in ("pending", "running")
    assert job.cancel().state == "cancelled"
    with pytest.raises(CancelledError):
        job.result(LONG_S)
    assert job.wait().state == "cancelled"
    assert [one.state for one in job.watch()] == ["cancelled"]


def test_what_can_not_be_pickled_is_named_before_any_job_is_made(mesh: Client) -> None:
    lock = threading.Lock()
    before = len(mesh.jobs())
    with pytest.raises(Unpicklable, match=r"argument 2 \(a lock\) can't be pickled: cannot pickle") as caught:
        mesh.submit(print, 1, lock)
    assert "inside of the function" in caught.value.hint
    with (
        pytest.raises(Unpicklable, match=r"the argument file \(a TextIOWrapper\)"),
        open(os.devnull, "w") as file,
    ):
        mesh.submit(print, file=file)
    with pytest.raises(Unpicklable, match=r"the function .*<lambda> .*: its variable lock \(a lock\)"):
        mesh.submit(lambda: lock.locked())
    with pytest.raises(Unpicklable, match=r"item 2 \(a generator\)"):
        mesh.map(list, [[], iter_of()], chunks=1)
    with pytest.raises(LocalFault, match="async function"):
        mesh.submit(nothing)
    with pytest.raises(LocalFault, match="can't be called"):
        mesh.submit(3)  # type: ignore[arg-type]
    assert len(mesh.jobs()) == before


def test_a_job_of_20_mb_is_refused_with_what_to_do(mesh: Client) -> None:
    with pytest.raises(LocalFault, match=r"come to 19\.1 MiB, and 16 MiB are allowed") as caught:
        mesh.submit(len, bytes(20_000_000))
    assert "files of the job" in caught.value.hint
    with pytest.raises(LocalFault, match="16 MiB are allowed"):
        mesh.map(len, [os.urandom(4_000_000) for _ in range(5)])


def test_options_that_no_task_can_have_are_refused(mesh: Client) -> None:
    for options, what in (
        (Options(cpu=0), "out of range"),
        (Options(memory="much"), "memory: 'much' is no size"),
        (Options(env={"MESHPEER_X": "1"}), "set by meshpeer itself"),
        (Options(files=("../x",)), "climbs out"),
    ):
        with pytest.raises(LocalFault, match=what):
            mesh.using(options).submit(abs, 2)
    with pytest.raises(LocalFault, match="no calls to make"):
        mesh.map(abs, [])


def test_a_call_of_another_python_is_refused_before_it_runs_and_names_both(
    mesh: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pickling, "encode_calls", lambda _, version, calls: encode_calls((3, 9), version, calls)
    )
    mine = ".".join(map(str, sys.version_info[:2]))
    with pytest.raises(RemoteError, match=f"pickled by Python 3.9, and this node runs .* Python {mine}"):
        mesh.submit(abs, 2).result(LONG_S)
    monkeypatch.setattr(pickling, "encode_calls", lambda mine, _, calls: encode_calls(mine, "1.0", calls))
    with pytest.raises(RemoteError, match=r"cloudpickle 1\.0, and this node has .*: install the same"):
        mesh.submit(abs, 2).result(LONG_S)


def test_calls_of_a_python_that_no_node_has_are_refused_at_once(
    mesh: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_options, "VERSION", "3.9")
    mine = ".".join(map(str, sys.version_info[:2]))
    with pytest.raises(LocalFault, match=rf"no node runs functions with Python 3\.9 \(.* has {mine}\)"):
        mesh.submit(abs, 2)


def test_a_job_file_names_functions_and_gives_them_its_fields(mesh: Client, tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(
        "import json, pathlib\n"
        "def area(side, *, scale=1):\n    return int(side) ** 2 * scale\n"
        "def total():\n"
        "    found = sorted(pathlib.Path('results').glob('area.*.json'))\n"
        "    return sum(json.loads(one.read_text()) for one in found)\n"
    )
    (tmp_path / "job.yaml").write_text(
        "name: shapes\nfiles: [shapes.py]\ntasks:\n"
        "  area: {array: 3, python: {call: 'shapes:area', args: ['${index}'], kwargs: {scale: 10}}}\n"
        "  total: {needs: [area], python: 'shapes:total'}\n"
        "  lost: {python: 'shapes:no.such'}\n"
    )
    job = mesh.submit_job(tmp_path / "job.yaml")
    *found, lost = job.gather(LONG_S, return_exceptions=True)
    assert found == [0, 10, 40, 50]
    assert str(lost) == "there is no no.such in shapes"
    assert job.output("results/total.json", "total") == b"50"


def test_a_mapping_is_a_job_and_its_folder_may_be_another(mesh: Client) -> None:
    spec = {
        "name": "m",
        "tasks": {"t": {"python": {"call": "os:getcwd"}, "cwd": "a/b"}, "c": {"run": "true"}},
    }
    job = mesh.submit_job(spec)
    assert str(job.gather(LONG_S)[0]).endswith("/work/a/b")
    with pytest.raises(LocalFault, match="has no task that is a function"):
        mesh.submit_job({"name": "n", "tasks": {"t": {"run": "true"}}}).gather(LONG_S)


def test_who_connects_where_no_agent_is_learns_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotRunning) as caught:
        connect(tmp_path)
    assert "meshpeer up" in caught.value.hint


async def nothing() -> None:
    pass


def iter_of() -> Iterator[int]:
    yield 1


def module_of(name: str) -> types.ModuleType:
    """A module of this process alone: what it holds is pickled by reference."""
    module = types.ModuleType(name)
    exec("def double(n):\n    return 2 * n\n", module.__dict__)
    sys.modules[name] = module
    return module
