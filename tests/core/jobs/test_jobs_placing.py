from __future__ import annotations

import json

import pytest

from meshpeer.adapters.specfile.json_document import read_json
from meshpeer.adapters.specfile.toml_document import read_toml
from meshpeer.adapters.specfile.yaml_document import read_yaml
from meshpeer.core.jobs import rules
from meshpeer.core.jobs.check import check_job
from meshpeer.core.jobs.model import JobSpec, Need, TaskSpec, Where
from meshpeer.core.jobs.problems import describe_errors
from meshpeer.core.jobs.spec import ParsedJob, parse_job

YAML = """\
name: x
priority: -5
groups: {licence: 2}
defaults:
  resources: {gpu: 1, memory: 1GiB}
  where: {region: eu}
  on_failure: fail-fast
  backoff: 2s
tasks:
  probe: {run: "true"}
  train:
    run: "true"
    needs: [{task: probe, when: ended}]
    resources: {cpu: 2, gpu: 0, scratch_disk: 3}
    where: {role: [gpu, render], label: {disk: ssd, rack: [a, b]}, node: alpha}
    priority: 7
    backoff: {first: 1s, max: 5m}
    on_failure: continue
    group: licence
    speculate: false
"""
TOML = """\
name = "x"
priority = -5
groups = {licence = 2}
[defaults]
resources = {gpu = 1, memory = "1GiB"}
where = {region = "eu"}
on_failure = "fail-fast"
backoff = "2s"
[tasks.probe]
run = "true"
[tasks.train]
run = "true"
needs = [{task = "probe", when = "ended"}]
resources = {cpu = 2, gpu = 0, scratch_disk = 3}
where = {role = ["gpu", "render"], label = {disk = "ssd", rack = ["a", "b"]}, node = "alpha"}
priority = 7
backoff = {first = "1s", max = "5m"}
on_failure = "continue"
group = "licence"
speculate = false
"""
JSON = {
    "name": "x",
    "priority": -5,
    "groups": {"licence": 2},
    "defaults": {
        "resources": {"gpu": 1, "memory": "1GiB"},
        "where": {"region": "eu"},
        "on_failure": "fail-fast",
        "backoff": "2s",
    },
    "tasks": {
        "probe": {"run": "true"},
        "train": {
            "run": "true",
            "needs": [{"task": "probe", "when": "ended"}],
            "resources": {"cpu": 2, "gpu": 0, "scratch_disk": 3},
            "where": {
                "role": ["gpu", "render"],
                "label": {"disk": "ssd", "rack": ["a", "b"]},
                "node": "alpha",
            },
            "priority": 7,
            "backoff": {"first": "1s", "max": "5m"},
            "on_failure": "continue",
            "group": "licence",
            "speculate": False,
        },
    },
}
READ = JobSpec(
    name="x",
    priority=-5,
    groups=(("licence", 2),),
    tasks=(
        TaskSpec(
            name="probe",
            shell="true",
            memory_bytes=1024**3,
            resources=(("gpu", 1),),
            where=Where(regions=("eu",)),
            on_failure="fail-fast",
            backoff_ms=2_000,
        ),
        TaskSpec(
            name="train",
            shell="true",
            needs=(Need(task="probe", when="ended"),),
            cpu=2,
            memory_bytes=1024**3,
            resources=(("scratch_disk", 3),),
            where=Where(
                roles=("gpu", "render"), labels=(("disk", ("ssd",)), ("rack", ("a", "b"))), nodes=("alpha",)
            ),
            priority=7,
            backoff_ms=1_000,
            backoff_max_ms=300_000,
            group="licence",
            speculate=False,
        ),
    ),
)


@pytest.mark.parametrize(
    "document", [read_yaml(YAML), read_toml(TOML), read_json(json.dumps(JSON))], ids=["yaml", "toml", "json"]
)
def test_every_form_says_where_and_when_alike(document: object) -> None:
    parsed = parse_job(document)  # type: ignore[arg-type]
    assert not parsed.errors
    assert parsed.spec == READ


def test_a_job_that_says_nothing_has_the_defaults() -> None:
    parsed = parse_job(read_yaml("name: x\ntasks: {t: {run: x}}\n"))
    assert parsed.spec == JobSpec(name="x", tasks=(TaskSpec(name="t", shell="x"),))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("resources: {gpus: 1}", "resources.gpus: unknown resource 'gpus' (did you mean 'gpu'?)"),
        ("resources: {gpu: half}", "resources.gpu: it is text, and must be a whole number (0 to 1,000,000)"),
        (
            "resources: {GPU: 1}",
            "resources.GPU: 'GPU' is no name of a resource (up to 32 lower-case letters, ",
        ),
        ("where: {regoin: eu}", "where.regoin: unknown field 'regoin' (did you mean 'region'?)"),
        ("where: {region: []}", "where.region: the list is empty (name one, or leave it out for any)"),
        ("where: {node: Alpha}", "where.node: 'Alpha' is no node (lower-case letters, digits and '-')"),
        ("where: {node: 'n${index}'}", "where.node: 'n${index}' is no node (it is not expanded)"),
        (
            "where: {label: {disk: '${kind}'}}",
            "where.label.disk: '${kind}': labels are not expanded (write it out)",
        ),
        ("where: eu", "where: it is text, and must be a mapping (write {region: eu, role: gpu, "),
        ("priority: high", "priority: it is text, and must be a whole number (-100 to 100)"),
        ("priority: 101", "priority: 101 is out of range (-100 to 100)"),
        ("backoff: 25h", "backoff: it is longer than a day (write at most 24h)"),
        ("backoff: {first: 5m, max: 1m}", "backoff: the first pause is longer than the longest (raise max)"),
        ("on_failure: fail_fast", "on_failure: 'fail_fast' is no way to go on (did you mean 'fail-fast'?)"),
        ("group: license", "group: unknown group 'license' (did you mean 'licence'?)"),
        ("speculate: no thanks", "speculate: it is neither true nor false (write true or false)"),
        (
            "needs: [{task: u, when: fialed}]",
            "needs[0].when: 'fialed' is no end of a task (did you mean 'failed'?)",
        ),
        ("needs: [{task: u, when: {exit: 256}}]", "needs[0].when.exit: 256 is out of range (0 to 255)"),
        (
            "needs: [{task: u, when: {exit: []}}]",
            "needs[0].when.exit: the list is empty (name one exit code at least)",
        ),
        ("needs: [{task: u, when: {}}]", "needs[0].when: it names no exit code (write {exit: 3})"),
        (
            "needs: [{task: u, when: {exit_code: 3}}]",
            "needs[0].when.exit_code: unknown field 'exit_code' (did you mean 'exit'?)",
        ),
        (
            "needs: [{task: w, when: {exit: 0}}]",
            "needs[0].when: 'w' is a webhook, and has no exit code (write succeeded, failed, ended)",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_line(line: str, error: str) -> None:
    parsed = parse_job(
        read_yaml(
            "name: x\ngroups: {licence: 1}\ntasks:\n  u: {run: x}\n"
            "  w: {webhook: {url: 'http://127.0.0.1:1'}}\n"
            f"  t:\n    run: x\n    {line}\n"
        )
    )
    said = lines(parsed)
    assert len(said) == 1
    assert said[0].startswith("job:8:")
    assert f" tasks.t.{error}" in said[0]


def test_exit_codes_are_read_in_order_and_once() -> None:
    job = "name: x\ntasks:\n  u: {run: x}\n  t: {run: x, needs: [{task: u, when: {exit: %s}}]}\n"
    for written, codes in (("3", (3,)), ("[4, 3, 4]", (3, 4)), ("0", (0,))):
        parsed = parse_job(read_yaml(job % written))
        assert parsed.spec is not None, lines(parsed)
        (need,) = parsed.spec.tasks[1].needs
        assert (need.when, need.exits) == ("exit", codes)


@pytest.mark.parametrize(
    "need",
    [
        Need(task="u", when="exit"),
        Need(task="u", when="exit", exits=(3, 3)),
        Need(task="u", when="exit", exits=(256,)),
        Need(task="u", exits=(3,)),
    ],
)
def test_exit_codes_from_elsewhere_are_judged(need: Need) -> None:
    tasks = (TaskSpec(name="u", argv=("x",)), TaskSpec(name="t", argv=("x",), needs=(need,)))
    assert [one.path for one in check_job(JobSpec(name="x", tasks=tasks))] == [
        ("tasks", "t", "needs", 0, "when")
    ]


@pytest.mark.parametrize(
    ("keep", "seconds"),
    [
        ("10m", 600),
        ("12h", 43_200),
        ("3650d", 315_360_000),
        ("3651d", "job:2:7: keep: 3651d is more than ten years (fetch what is to stay that long)"),
        ("30", "job:2:7: keep: 30 has no unit (write 30d, or another of m, h and d)"),
        (
            "ever",
            "job:2:7: keep: 'ever' is no time to keep results (write a number and m, h or d, such as 30d)",
        ),
    ],
)
def test_a_job_says_how_long_its_results_stay(keep: str, seconds: int | str) -> None:
    parsed = parse_job(read_yaml(f"name: x\nkeep: {keep}\ntasks: {{t: {{run: x}}}}\n"))
    if isinstance(seconds, str):
        assert lines(parsed) == [seconds]
        return
    assert parsed.spec is not None
    assert parsed.spec.keep_s == seconds
    assert not check_job(parsed.spec)
    assert check_job(JobSpec(name="x", tasks=parsed.spec.tasks, keep_s=-1))


def test_a_way_to_go_on_is_told_from_the_url_of_a_job() -> None:
    parsed = parse_job(read_yaml("name: x\non_failure: fail-fast\ntasks: {t: {run: x}}\n"))
    assert lines(parsed) == [
        "job:2:13: on_failure: here stands a URL that is told when the job has failed "
        "(write defaults: {on_failure: fail-fast})"
    ]


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec(name="t", shell="x", resources=(("gpu", 0),)),
        TaskSpec(name="t", shell="x", resources=(("gpu", 1), ("gpu", 1))),
        TaskSpec(name="t", shell="x", resources=(("cpu", 1),)),
        TaskSpec(name="t", shell="x", resources=tuple((f"r{number:02}", 1) for number in range(17))),
        TaskSpec(name="t", shell="x", where=Where(labels=(("a", ()),))),
        TaskSpec(name="t", shell="x", where=Where(labels=(("a", ("\n",)),))),
        TaskSpec(name="t", shell="x", where=Where(nodes=("n",) * 65)),
        TaskSpec(name="t", shell="x", priority=-101),
        TaskSpec(name="t", shell="x", backoff_ms=-1),
        TaskSpec(name="t", shell="x", on_failure="abort"),
        TaskSpec(name="t", shell="x", group="none"),
        TaskSpec(name="t", shell="x", needs=(Need(task="u", when="never"),)),
    ],
)
def test_a_record_from_elsewhere_is_judged_by_the_same_rules(task: TaskSpec) -> None:
    assert check_job(JobSpec(name="x", tasks=(task, TaskSpec(name="u", shell="x"))))


def test_a_job_has_a_bounded_number_of_different_placements() -> None:
    different = tuple(
        TaskSpec(name=f"t{number}", shell="x", resources=(("gpu", number + 1),))
        for number in range(rules.PLACEMENTS_MAX + 1)
    )
    assert not check_job(JobSpec(name="x", tasks=different[:-1]))
    assert check_job(JobSpec(name="x", tasks=different))


def lines(parsed: ParsedJob) -> list[str]:
    return describe_errors(parsed.errors, "job")
