"""Jobs on the command line: submit, validate, look, fetch, run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from cli_calls import Call, Ran
from fake_control_api import FakeApi, make_task

from meshpeer.core.errors import StoreFailed
from meshpeer.runtime.control import JobMessage

FILM = """
name: film
files: [split.py]
tasks:
  split: {run: [python3, split.py], outputs: [scene/]}
  render: {needs: [split], array: 0-2, run: "echo $index", outputs: ["frame-*.ppm"]}
  film: {needs: [render], run: [cat], outputs: [out/film.gif]}
"""
JOB_KEYS = {"id", "name", "state", "owner", "durability", "tasks", "submitted_at", "finished_at"}
COUNT_KEYS = {"total", "waiting", "ready", "running", "succeeded", "failed", "skipped", "cancelled"}


def test_submit_carries_files_and_job_and_says_what_is_next(agent: FakeApi, call: Call, film: Path) -> None:
    ran = call("jobs", "submit", "film.yaml")
    assert ran.code == 0
    (job,) = agent.submissions
    assert ran.out.splitlines() == [
        f"{job} is submitted: film, 5 tasks",
        f"  watch it with: meshpeer jobs watch {job}",
    ]
    assert list(agent.stored.values()) == [b"print(1)\n"]
    assert [one.name for one in agent.specs[job].tasks] == ["split", "render", "film"]


def test_submit_again_uploads_nothing_twice(agent: FakeApi, call: Call, film: Path) -> None:
    call("jobs", "submit", "film.yaml")
    call("jobs", "submit", "film.yaml")
    assert len([one for one in agent.asked if one[0] == "put_blob"]) == 1
    assert len(set(agent.submissions)) == 2, "each submit is a job of its own"


def test_submit_answers_with_a_job_document_or_its_id(agent: FakeApi, call: Call, film: Path) -> None:
    found = call("jobs", "submit", "film.yaml", "--json").json()
    assert isinstance(found, dict)
    assert set(found) >= JOB_KEYS
    assert set(found["tasks"]) == COUNT_KEYS
    assert call("--quiet", "jobs", "submit", "film.yaml").out == f"{agent.submissions[1]}\n"


def test_submit_waits_and_fetches_what_nobody_needs(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"film": {"out/film.gif": b"GIF89a"}, "split": {"scene/a": b"never fetched"}}
    ran = call("jobs", "submit", "film.yaml", "--wait", "--output", "results")
    assert ran.code == 0
    assert Path("results/out/film.gif").read_bytes() == b"GIF89a"
    assert _files("results") == ["out/film.gif"]
    assert f"{agent.submissions[0]} (film): succeeded" in ran.out
    assert "done by" in ran.out
    assert "5 of 5 done" in ran.err


def test_wait_prints_one_document_and_nothing_else(agent: FakeApi, call: Call, film: Path) -> None:
    ran = call("jobs", "submit", "film.yaml", "--wait", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json()["state"] == "succeeded"  # type: ignore[index]


def test_waiting_for_a_job_that_fails_ends_with_1(agent: FakeApi, call: Call, film: Path) -> None:
    agent.job_state = "failed"
    job = _submit(agent, call)
    agent.tasks_of[job][1] = make_task(
        id="render[0]", name="render", index=0, state="failed", exit_code=3, error="exit code 3", wanted=False
    )
    ran = call("jobs", "watch", job)
    assert ran.code == 1
    assert f"error: {job}: render[0] failed on beta: exit code 3" in ran.err
    assert f"hint: see: meshpeer jobs logs {job} 'render[0]'" in ran.err
    assert f"{job} (film): failed" in ran.out


def test_waiting_for_a_job_that_is_cancelled_ends_with_1(agent: FakeApi, call: Call, film: Path) -> None:
    agent.job_state = "cancelled"
    ran = call("jobs", "watch", _submit(agent, call))
    assert ran.code == 1
    assert "was cancelled" in ran.err


def test_an_agent_that_dies_while_one_waits_says_that_the_job_goes_on(
    agent: FakeApi, call: Call, film: Path
) -> None:
    agent.die_in_watch = True
    ran = call("jobs", "submit", "film.yaml", "--wait", "--quiet")
    assert ran.code == 3
    assert "the job goes on" in ran.err.splitlines()[-1]


def test_output_without_wait_is_wrong_usage(agent: FakeApi, call: Call, film: Path) -> None:
    ran = call("jobs", "submit", "film.yaml", "--output", "d")
    assert ran.code == 2
    assert "--wait" in ran.two_lines[0]
    assert agent.asked == []


def test_a_full_disk_refuses_the_submit(agent: FakeApi, call: Call, film: Path) -> None:
    agent.fault = StoreFailed("the journal can't be written: No space left on device", "free some space")
    ran = call("jobs", "submit", "film.yaml")
    assert ran.code == 5
    assert ran.two_lines == ("the journal can't be written: No space left on device", "free some space")


def test_validate_needs_no_agent(call: Call, film: Path) -> None:
    ran = call("jobs", "validate", "film.yaml")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "film.yaml is valid: film, 5 tasks"
    assert call("jobs", "validate", "film.yaml", "--json").json() == {
        "valid": True,
        "name": "film",
        "tasks": 5,
        "files": 1,
        "bytes": 9,
        "errors": [],
    }
    assert call("jobs", "validate", "film.yaml", "--quiet").out == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: x\ntasks: {}\n", "task"),
        ("name: x\ntasks: {a: {run: [true], needs: [b]}, b: {run: [true], needs: [a]}}\n", ""),
        ("name: x\ntasks:\n  a: {run: ['true'], needs: [zzz]}\n", "job.yaml:3"),
        ("name: x\ntasks:\n  a: {run: ['true'], array: 0-100000}\n", "100,00"),
        ("name: x\ntasks:\n  a: {run: ['true'], retries: many}\n", "job.yaml:3"),
        (": : :\n", "job.yaml:1"),
    ],
)
def test_a_bad_job_file_is_wrong_usage_and_changes_nothing(
    agent: FakeApi, call: Call, home: Path, text: str, what: str
) -> None:
    Path("job.yaml").write_text(text)
    for command in ("validate", "submit"):
        ran = call("jobs", command, "job.yaml")
        assert (ran.code, ran.out) == (2, "")
        assert what in ran.err
        assert ran.err.splitlines()[-2].startswith("error: job.yaml")
        assert ran.err.splitlines()[-1].startswith(" hint: ")
    assert agent.asked == []


def test_each_of_several_errors_has_a_line_that_editors_jump_to(call: Call, home: Path) -> None:
    Path("job.yaml").write_text("name: x\ntasks:\n  a: {run: ['true'], retries: x}\n  b: {rum: ['true']}\n")
    ran = call("jobs", "validate", "job.yaml")
    located = [line for line in ran.err.splitlines() if line.startswith("job.yaml:")]
    assert len(located) >= 2
    assert located[0].startswith("job.yaml:3:")


def test_the_errors_of_a_job_file_are_a_document_too(call: Call, home: Path) -> None:
    Path("job.yaml").write_text("name: x\ntasks:\n  a: {run: ['true'], retries: many}\n")
    ran = call("jobs", "validate", "job.yaml", "--json")
    found = ran.json()
    assert ran.code == 2
    assert isinstance(found, dict)
    assert found["valid"] is False
    assert found["errors"][0]["line"] == 3
    assert set(found["errors"][0]) == {"field", "line", "column", "what", "hint"}


def test_a_job_file_that_is_not_there_is_wrong_usage(call: Call) -> None:
    assert call("jobs", "validate", "absent.yaml").code == 2


def test_jobs_are_listed_with_the_keys_of_the_contract(agent: FakeApi, call: Call, film: Path) -> None:
    assert "meshpeer jobs submit" in call("jobs", "list").out
    job = _submit(agent, call)
    (found,) = call("jobs", "list", "--json").json()  # type: ignore[misc]
    assert set(found) >= JOB_KEYS
    head, row = call("jobs", "list").out.splitlines()
    assert head.split()[:4] == ["ID", "NAME", "STATE", "TASKS"]
    assert row.split()[:3] == [job, "film", "succeeded"]
    assert call("jobs", "list", "--quiet").out == f"{job}\n"


def test_a_job_may_be_named_by_its_name(agent: FakeApi, call: Call, film: Path) -> None:
    job = _submit(agent, call)
    for name in (job, "film"):
        assert call("jobs", "status", name).out.startswith(f"{job} (film): succeeded\n")
    assert call("jobs", "status", "film", "--quiet").out == "succeeded\n"
    assert set(call("jobs", "status", "film", "--json").json()) >= JOB_KEYS  # type: ignore[call-overload]


def test_status_says_how_its_end_was_told(agent: FakeApi, call: Call, film: Path) -> None:
    url = "http://127.0.0.1:9000/ended"
    agent.told = (
        JobMessage(event="on_complete", url=url, state="delivered", trouble=""),
        JobMessage(event="on_failure", url=url, state="given_up", trouble="it answered 404"),
    )
    _submit(agent, call)
    said = [" ".join(line.split()) for line in call("jobs", "status", "film").out.splitlines()]
    assert f"on_complete delivered: {url}" in said
    assert f"on_failure given up: {url} (it answered 404)" in said


def test_a_job_that_is_not_there_is_wrong_usage(agent: FakeApi, call: Call) -> None:
    for arguments in (("status",), ("tasks",), ("watch",), ("logs",), ("cancel",)):
        ran = call("jobs", *arguments, "nosuch")
        assert ran.code == 2
        assert ran.two_lines[0] == "this node owns no job 'nosuch'"


def test_tasks_have_the_keys_of_the_contract(agent: FakeApi, call: Call, film: Path) -> None:
    job = _submit(agent, call)
    found = call("jobs", "tasks", job, "--json").json()
    assert isinstance(found, list)
    assert [one["id"] for one in found] == ["split", "render[0]", "render[1]", "render[2]", "film"]
    assert set(found[0]) >= {
        "id", "name", "index", "state", "node", "attempts", "exit_code", "stdout_bytes", "outputs",
    }  # fmt: skip
    assert set(found[0]["attempts"][0]) >= {
        "n", "node", "state", "exit_code", "started_at", "finished_at", "stolen_from",
    }  # fmt: skip
    assert call("jobs", "tasks", job).out.splitlines()[2].split()[:2] == ["render[0]", "succeeded"]


def test_cancel_says_how_it_is_now(agent: FakeApi, call: Call, film: Path) -> None:
    job = _submit(agent, call)
    assert call("jobs", "cancel", "film").out == f"{job} (film) is cancelled; 5 tasks had succeeded\n"
    assert call("jobs", "cancel", "film", "--json").json()["state"] == "cancelled"  # type: ignore[index]


# --- logs and results --------------------------------------------------


def test_a_tasks_output_comes_out_where_it_was_printed(agent: FakeApi, call: Call, film: Path) -> None:
    agent.printed = {("split", "stdout"): b"one long line\n" * 10, ("split", "stderr"): b"trouble\n"}
    _submit(agent, call)
    for follow in ((), ("--follow",)):
        ran = call("jobs", "logs", "film", "split", *follow)
        assert (ran.out, ran.err) == ("one long line\n" * 10, "trouble\n")
    assert call("jobs", "logs", "film", "split", "--stream", "stderr").out == ""
    assert call("jobs", "logs", "film", "split", "--json").json() == {
        "stdout": "one long line\n" * 10,
        "stderr": "trouble\n",
    }


def test_logs_of_a_whole_job_name_each_task(agent: FakeApi, call: Call, film: Path) -> None:
    agent.printed = {("render[1]", "stdout"): b"1\n", ("film", "stdout"): b"done\n"}
    _submit(agent, call)
    ran = call("jobs", "logs", "film")
    assert ran.out == "1\ndone\n"
    assert ran.err.splitlines() == ["==> render[1] on beta <==", "==> film on beta <=="]
    assert call("jobs", "logs", "film", "--quiet").err == ""


def test_result_shows_and_fetches_files(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"render[1]": {"frame-1.ppm": b"P6", "sub/run.sh": b"#!/bin/sh\n", "empty": b""}}
    _submit(agent, call)
    shown = call("jobs", "result", "film", "render[1]").out.splitlines()
    assert shown[0] == "render[1]: succeeded on beta with exit code 0"
    assert shown[1].split() == ["2", "B", "frame-1.ppm"]
    assert call("jobs", "result", "film", "render[1]", "--output", "got").code == 0
    assert _files("got") == ["empty", "frame-1.ppm", "sub/run.sh"]
    assert os.access("got/sub/run.sh", os.X_OK)
    assert not os.access("got/frame-1.ppm", os.X_OK) or os.stat("got/frame-1.ppm").st_mode & 0o111 == 0


def test_a_result_that_is_none_ends_with_1(agent: FakeApi, call: Call, film: Path) -> None:
    job = _submit(agent, call)
    agent.tasks_of[job][0] = make_task(state="running", exit_code=None, attempts=())
    ran = call("jobs", "result", "film", "split")
    assert ran.code == 1
    assert ran.two_lines[0] == "split has not ended: it is running"
    agent.tasks_of[job][0] = make_task(state="failed", exit_code=3, error="exit code 3")
    ran = call("jobs", "result", "film", "split")
    assert (ran.code, ran.out) == (1, "split: failed on beta with exit code 3: exit code 3\n")


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ".."])
def test_an_output_that_leads_out_of_the_folder_is_refused(
    agent: FakeApi, call: Call, film: Path, path: str
) -> None:
    agent.made = {"film": {path: b"evil"}}
    _submit(agent, call)
    ran = call("jobs", "result", "film", "film", "--output", "inner/got")
    assert ran.code == 1
    assert "leads out of the folder" in ran.two_lines[0]
    assert not _files("inner")


@pytest.mark.parametrize("task", ["../evil", "/etc/evil", ".."])
def test_a_task_of_another_nodes_job_that_leads_out_of_the_folder_is_refused(
    agent: FakeApi, call: Call, film: Path, task: str
) -> None:
    job = _submit(agent, call)
    made = make_task(state="succeeded", wanted=True)
    agent.tasks_of[job][:] = [msgspec.structs.replace(made, id="one"), msgspec.structs.replace(made, id=task)]
    agent.made = {"one": {"evil": b"evil"}, task: {"evil": b"evil"}}
    ran = call("jobs", "result", "film", "--output", "inner/got")
    assert ran.code == 1
    assert "which is no name" in ran.two_lines[0]
    assert not _files("inner")


def test_an_output_never_follows_a_link_out_of_the_folder(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"film": {"out/film.gif": b"GIF"}}
    _submit(agent, call)
    Path("elsewhere").mkdir()
    Path("got").mkdir()
    Path("got/out").symlink_to(Path("elsewhere").absolute())
    ran = call("jobs", "result", "film", "film", "--output", "got")
    assert ran.code == 5
    assert "is a link" in ran.two_lines[0]
    assert _files("elsewhere") == []


def test_a_link_in_an_outputs_place_is_replaced_not_followed(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"film": {"film.gif": b"GIF"}}
    _submit(agent, call)
    Path("got").mkdir()
    Path("target").write_text("untouched")
    Path("got/film.gif").symlink_to(Path("target").absolute())
    assert call("jobs", "result", "film", "film", "--output", "got", "--force").code == 0
    assert (Path("target").read_text(), Path("got/film.gif").read_bytes()) == ("untouched", b"GIF")


def test_a_result_overwrites_nothing_unless_it_is_told_to(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"film": {"a": b"new a", "film.gif": b"GIF"}}
    _submit(agent, call)
    Path("got").mkdir()
    Path("got/film.gif").write_bytes(b"mine")
    ran = call("jobs", "result", "film", "film", "--output", "got")
    assert ran.code == 2
    assert ran.two_lines == (
        "got/film.gif is there already, and is something else",
        "name another folder with --output, or overwrite it with --force",
    )
    assert _files("got") == ["film.gif"], "not even the other file was written"
    assert call("jobs", "result", "film", "film", "--output", "got", "--force").code == 0
    assert (Path("got/a").read_bytes(), Path("got/film.gif").read_bytes()) == (b"new a", b"GIF")
    assert call("jobs", "result", "film", "film", "--output", "got").code == 0, "it is there: done before"


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(agent: FakeApi, call: Call, film: Path) -> None:
    data = bytes(range(256)) * 20
    agent.made = {"film": {"film.gif": data}}
    agent.awaited = 1
    _submit(agent, call)
    Path("got").mkdir()
    draft = Path("got") / f".meshpeer-{hashlib.sha256(data).hexdigest()[:32]}.part"
    draft.write_bytes(data[:3_000])
    assert call("jobs", "result", "film", "film", "--output", "got").code == 0
    assert Path("got/film.gif").read_bytes() == data
    assert _files("got") == ["film.gif"]
    assert ("get_output", "film", "film", "film.gif", 3_000) in agent.asked
    draft.write_bytes(b"rubbish")
    Path("got/film.gif").unlink()
    assert call("jobs", "result", "film", "film", "--output", "got").code == 1, "it is not what was announced"
    assert call("jobs", "result", "film", "film", "--output", "got").code == 0


def test_a_result_without_a_task_is_of_all_that_nobody_needs(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"split": {"scene/1": b"work"}, "film": {"out/film.gif": b"GIF"}}
    _submit(agent, call)
    assert call("jobs", "result", "film").out.splitlines()[0].startswith("film: succeeded on beta")
    assert call("jobs", "result", "film", "--output", "got").code == 0
    assert _files("got") == ["out/film.gif"]


def test_a_task_whose_inputs_are_moved_says_how_far_that_is(agent: FakeApi, call: Call, film: Path) -> None:
    job = _submit(agent, call)
    agent.tasks_of[job][0] = make_task(
        state="ready", exit_code=None, attempts=(), staged_bytes=1_288_490_188, input_bytes=5 * 1024**3
    )
    assert "staging 1.2 GiB of 5.0 GiB" in call("jobs", "tasks", "film").out


def test_an_output_of_another_content_is_not_kept(agent: FakeApi, call: Call, film: Path) -> None:
    agent.made = {"film": {"film.gif": b"GIF"}}
    agent.lies = {"film.gif": "00" * 32}
    _submit(agent, call)
    ran = call("jobs", "result", "film", "film", "--output", "got")
    assert ran.code == 1
    assert "SHA-256 differs" in ran.two_lines[0]
    assert _files("got") == []


def test_outputs_with_one_path_stand_in_their_tasks_folders(agent: FakeApi, call: Call, home: Path) -> None:
    Path("job.yaml").write_text("name: j\ntasks: {a: {run: ['true'], array: 0-1}, b: {run: ['true']}}\n")
    agent.made = {"a[0]": {"x": b"0"}, "a[1]": {"x": b"1"}, "b": {"y": b"2"}}
    assert call("jobs", "submit", "job.yaml", "--wait", "--output", "got").code == 0
    assert _files("got") == ["a[0]/x", "a[1]/x", "y"]


def test_outputs_that_others_made_come_home_too(agent: FakeApi, call: Call, home: Path) -> None:
    Path("job.yaml").write_text("name: j\ntasks: {a: {run: ['true'], array: 0-1}}\n")
    agent.made, agent.made_elsewhere = {"a[0]": {"x": b"0"}, "a[1]": {"y": b"1"}}, True
    assert call("jobs", "submit", "job.yaml", "--wait", "--output", "got").code == 0
    assert _files("got") == ["x", "y"]


def test_an_output_below_another_ones_file_stands_apart(agent: FakeApi, call: Call, home: Path) -> None:
    Path("job.yaml").write_text("name: j\ntasks: {a: {run: ['true']}, b: {run: ['true']}}\n")
    agent.made = {"a": {"x": b"0"}, "b": {"x/y": b"1"}}
    assert call("jobs", "submit", "job.yaml", "--wait", "--output", "got").code == 0
    assert _files("got") == ["a/x", "b/x/y"]


# --- run ---------------------------------------------------------------


def test_run_streams_both_and_exits_as_the_command_did(agent: FakeApi, call: Call) -> None:
    agent.printed = {("run", "stdout"): b"out\xff\n", ("run", "stderr"): b"err\n"}
    ran = _run(agent, call, exit_code=7)
    assert (ran.code, ran.err) == (7, "err\n")
    assert ran.out.startswith("out")


def test_run_hands_the_command_over_as_it_was_written(agent: FakeApi, call: Call) -> None:
    line = ("sh", "-c", "echo '$x' --json", "--help")
    call("jobs", "run", "--env", "A=b=c", "--cpu", "2", "--retries", "1", "--", *line)
    (spec,) = agent.specs.values()
    (task,) = spec.tasks
    assert task.argv == line
    assert (task.env, task.cpu, task.retries) == ((("A", "b=c"),), 2, 1)
    assert spec.name == "sh"


def test_options_of_the_command_are_its_own_without_dashes_too(agent: FakeApi, call: Call) -> None:
    call("jobs", "run", "uname", "-a", "--json")
    (spec,) = agent.specs.values()
    assert spec.tasks[0].argv == ("uname", "-a", "--json")


def test_run_carries_files_and_fetches_outputs(agent: FakeApi, call: Call, home: Path) -> None:
    Path("in.txt").write_text("hello")
    agent.made = {"run": {"out.txt": b"HELLO"}}
    ran = call("jobs", "run", "--file", "in.txt", "--output", "out.txt", "--", "tr", "a-z", "A-Z")
    assert ran.code == 0
    assert list(agent.stored.values()) == [b"hello"]
    assert Path("out.txt").read_bytes() == b"HELLO"
    assert ran.err == "fetched out.txt\n"


def test_run_over_an_array_prints_each_element_after_its_index(agent: FakeApi, call: Call) -> None:
    agent.printed = {
        ("run[0]", "stdout"): b"a\nb",
        ("run[1]", "stdout"): b"c\n",
        ("run[1]", "stderr"): b"!\n",
    }
    ran = call("jobs", "run", "--array", "0-1", "--", "true")
    assert (ran.code, ran.out, ran.err) == (0, "[0] a\n[0] b\n[1] c\n", "[1] !\n")


@pytest.mark.parametrize(
    ("text", "size"), [("0-2", 3), ("3", 3), ("[a, b]", 2), ('["x y"]', 1), ('{"a": [1, 2], "b": [3, 4]}', 4)]
)
def test_arrays_are_written_as_in_a_job_file(agent: FakeApi, call: Call, text: str, size: int) -> None:
    assert call("jobs", "run", "--array", text, "--", "true").code == 0
    (spec,) = agent.specs.values()
    assert spec.tasks[0].array is not None
    assert spec.tasks[0].array.size == size


@pytest.mark.parametrize(
    "arguments",
    [
        ("--array", "5-1", "--", "true"),
        ("--array", "{bad", "--", "true"),
        ("--file", "absent", "--", "true"),
        ("--file", "../above", "--", "true"),
        ("--env", "A", "--", "true"),
        ("--timeout", "soon", "--", "true"),
        ("--cpu", "0", "--", "true"),
        ("--cpu", "many", "--", "true"),
        (),
        ("--",),
    ],
)
def test_a_run_that_can_not_be_is_wrong_usage(agent: FakeApi, call: Call, arguments: tuple[str, ...]) -> None:
    ran = call("jobs", "run", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.two_lines[0]) > 10
    assert agent.asked == []


def test_a_command_that_never_ran_says_why(agent: FakeApi, call: Call) -> None:
    ran = _run(agent, call, exit_code=None, state="failed", error="timed out after 5 s")
    assert ran.code == 1
    assert ran.two_lines[0] == "run did not run: timed out after 5 s"
    ran = _run(agent, call, exit_code=127, state="failed", error="no such program: nosuch")
    assert ran.code == 127
    assert ran.two_lines[0] == "run: no such program: nosuch"


def test_run_answers_with_the_job_and_nothing_else(agent: FakeApi, call: Call) -> None:
    agent.printed = {("run", "stdout"): b"out\n"}
    ran = call("jobs", "run", "--json", "--", "true")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json()["state"] == "succeeded"  # type: ignore[index]


def test_help_states_the_promises(call: Call) -> None:
    out = call("jobs", "--help").out
    for words in ("at least once", "Exactly one result per task", "MESHPEER_IDEMPOTENCY_KEY", "this_node"):
        assert words in out


# --- helpers -----------------------------------------------------------


@pytest.fixture
def film(home: Path) -> Path:
    Path("split.py").write_text("print(1)\n")
    path = Path("film.yaml")
    path.write_text(FILM)
    return path


def _submit(agent: FakeApi, call: Call) -> str:
    assert call("jobs", "submit", "film.yaml", "--quiet").code == 0
    return agent.submissions[-1]


def _run(
    agent: FakeApi, call: Call, *, exit_code: int | None, state: str = "failed", error: str = "exit code 7"
) -> Ran:
    """Runs a command whose only task ends like this, whatever its job's id will be."""
    agent.job_state = state
    task = make_task(id="run", name="run", state=state, exit_code=exit_code, error=error)

    class Always(dict[str, Sequence[object]]):
        def setdefault(self, key: str, default: object = None) -> object:  # type: ignore[override]
            self[key] = [task]
            return self[key]

    agent.tasks_of = Always()  # type: ignore[assignment]
    return call("jobs", "run", "--", "sh")


def _files(folder: str) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in Path(folder).rglob("*") if not one.is_dir())
