"""Tasks that services do, on three machines: services that misbehave, one that is down, an agent that is
killed; and the dashboard of that mesh."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import meshkit
import msgspec
import pytest
from meshlab import Lab, Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

NAMES = ("alpha", "bravo", "charlie")
SLOTS = {"alpha": 6, "bravo": 5, "charlie": 5}
"""Sixteen in flight."""
PORT = 18789
MANNERS = ("later", "slow", "before the 202", "twice", "with a forgery first")
TASKS = 200
DOWN_S = 4.0
SERVICE = Path(__file__).with_name("service_driver.py")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        alpha = lab.node("alpha")
        meshkit.found(alpha, "--slots", str(SLOTS["alpha"]))
        for name in NAMES[1:]:
            meshkit.join(lab.node(name), meshkit.invite(alpha), "--slots", str(SLOTS[name]))
        meshkit.wait_until_whole(lab, *NAMES)
        yield lab


def test_every_webhook_ends_once_whatever_services_and_agents_do(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha, bravo, charlie = (lab.node(name) for name in NAMES)
    began = time.monotonic()
    with service(alpha, tmp_path), service(bravo, tmp_path):
        job = meshkit.submit(alpha, webhook_job())
        meshkit.until(lambda: meshkit.job(alpha, job).done_on.get("bravo", 0) >= 5, "bravo has done some")
        # Services have work of bravo's when its agent dies; charlie's is not there at all for a while.
        meshkit.kill_agent(bravo)
        meshkit.meshpeer(bravo, "up", "--detach", "--slots", str(SLOTS["bravo"]))
        time.sleep(max(0.0, DOWN_S - (time.monotonic() - began)))
        assert meshkit.job(alpha, job).done_on.get("charlie", 0) == 0
        with service(charlie, tmp_path, "charlie"):
            alpha.run(["meshpeer", "jobs", "watch", job], timeout=90)
    took_s = time.monotonic() - began
    done = meshkit.job(alpha, job)
    tasks = meshkit.tasks(alpha, job)
    reports = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    answers: dict[str, collections.Counter[int]] = {
        manner: collections.Counter(
            code for one in reports.values() for code in one["answers"].get(manner, [])
        )
        for manner in MANNERS
    }
    with capsys.disabled():
        print(f"\n  {done.tasks.succeeded} of {done.tasks.total} in {took_s:.0f} s, on {done.done_on}")
        for manner in MANNERS:
            print(f"  {manner:22} answered {dict(answers[manner])}")
        print(f"  tried while an agent was away: {sum(one['refused'] for one in reports.values())}")
    assert (done.state, done.tasks.succeeded, done.tasks.total) == ("succeeded", TASKS, TASKS)
    assert set(done.done_on) == set(NAMES)
    for task in tasks:
        assert [one.state for one in task.attempts].count("succeeded") == 1, task
        assert not [one.error for one in task.attempts if one.state == "failed"], task
    for manner in ("later", "slow", "before the 202", "twice"):
        # 404: of an attempt that was stopped, since another one of its task was first.
        assert set(answers[manner]) <= {200, 404}
        assert answers[manner][200] >= TASKS // len(MANNERS) * (2 if manner == "twice" else 1)
    forged = answers["with a forgery first"]
    assert forged[415] == forged[400] <= forged[404]
    assert forged[200] >= TASKS // len(MANNERS)
    dashboard_shows_the_members_to_who_has_its_link(alpha)


def dashboard_shows_the_members_to_who_has_its_link(alpha: Node) -> None:
    link = meshkit.meshpeer(alpha, "dashboard", "--quiet").strip()
    jar = "/tmp/dashboard-cookies"
    alpha.run(["curl", "--silent", "--fail", "--cookie-jar", jar, link])
    following = ["curl", "--silent", "--max-time", "3", "--cookie", jar, f"{link.partition('?')[0]}events"]
    shown = alpha.run(following, check=False).stdout
    for name in NAMES:
        assert f'"name":"{name}"' in shown
    without = link.partition("?")[0]
    for refused in ([without], ["--header", "Host: evil.example", link], ["--header", "Origin: null", link]):
        shown = alpha.run(["curl", "--silent", "--write-out", "%{http_code}", *refused]).stdout
        assert shown[-3:] in ("401", "421", "403")
        assert "bravo" not in shown
    other = alpha.address()
    assert alpha.run(["curl", "--silent", f"http://{other}:51822/metrics"], check=False).returncode == 7


# --- helpers ------------------------------------------------------------


def webhook_job() -> str:
    manners = [{"manner": MANNERS[place % len(MANNERS)]} for place in range(TASKS)]
    hook = {"url": f"http://127.0.0.1:{PORT}/do", "body": {"manner": "${manner}"}}
    task = {"webhook": hook, "array": manners, "timeout": "60s", "retries": 2}
    return msgspec.json.encode({"name": "hooks", "tasks": {"t": task}}).decode()


@contextmanager
def service(node: Node, folder: Path, name: str = "") -> Iterator[None]:
    """Runs the service on a machine while the context lives; leaves its report in the folder."""
    report = folder / f"{name or node.name}.json"
    argv = [sys.executable, str(SERVICE), str(PORT), str(report)]
    with node.popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)
