"""The dashboard of a real mesh of five in a real browser: who is there, a job as it runs, its log, buttons,
and a member that dies. Pictures of each stay in ``out/dashboard``, and each is looked through for what keeps
people from using it."""

from __future__ import annotations

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

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OUT = Path(__file__).resolve().parents[2] / "out" / "dashboard"
CHECKS = Path(__file__).with_name("page_checks.js").read_text("utf-8")
NAMES = ("alpha", "bravo", "charlie", "delta", "echo")
FRAMES = 12

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()),
        reason="no chromium and chromedriver (scripts/bootstrap --labs)",
    ),
]


class Browser:
    """Chromium on a lab's machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.found: dict[str, list[str]] = {}

    def ask(self, **order: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser is gone"
        return json.loads(line)

    def run(self, script: str) -> object:
        return self.ask(run=script)

    def text(self, selector: str) -> str:
        texts = f"[...document.querySelectorAll({selector!r})].map((a) => a.innerText ?? a.textContent)"
        return str(self.run(f"return {texts}.join('\\n')"))

    def until(self, selector: str, *words: str, within_s: float = 20.0) -> None:
        what = f"{selector} says {', '.join(words)}"
        try:
            meshkit.until(lambda: all(word in self.text(selector) for word in words), what, within_s)
        except BaseException:
            print(self.text("body"), self.ask(logged=True))
            raise

    def press(self, selector: str, label: str) -> None:
        """Clicks what bears this label; it must be there, and not be disabled."""
        script = (
            f"const one = [...document.querySelectorAll({selector!r})]"
            f".find((a) => !a.disabled && (a.innerText.trim() === {label!r} || a.ariaLabel === {label!r}));"
            "if (one) one.click(); return Boolean(one);"
        )
        meshkit.until(lambda: bool(self.run(script)), f"{selector} {label} can be pressed")

    def show(self, view: str) -> None:
        self.run(f"location.hash = {'#' + view!r}")

    def shots(self, name: str) -> None:
        found = self.ask(shots=name, checks=CHECKS)
        assert isinstance(found, dict)
        self.found |= found


def test_what_happens_is_seen_on_the_page_and_its_buttons_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Lab.from_toml(meshkit.lan(*NAMES)) as lab:
        alpha = lab.node("alpha")
        meshkit.found(alpha, "--region", "eu")
        text = meshkit.invite(alpha, "--uses", "4")
        for name in NAMES[1:]:
            meshkit.join(lab.node(name), text, "--region", "eu" if name < "d" else "us")
        with browser(alpha) as page:
            page.ask(go=meshkit.meshpeer(alpha, "dashboard", "--quiet").strip())
            page.until("#counts", "5 alive of 5")
            # Tunnels are shown a few seconds after their first handshakes: meanwhile there is work.
            job_runs_before_ones_eyes(page, alpha)
            members_are_seen(page)
            job_of_another_is_cancelled_by_its_button(page, alpha, lab.node("bravo"))
            node_is_drained_by_its_button(page, alpha)
            took_s = death_is_seen(page, lab.node("echo"))
            assert page.ask(logged=True) == []
            found = page.found
    with capsys.disabled():
        print(f"\n  a killed agent was seen on the page after {took_s:.1f} s")
        print(f"  {len(found)} pictures in {OUT}")
    assert {picture: faults for picture, faults in found.items() if faults} == {}


def members_are_seen(page: Browser) -> None:
    page.show("mesh")
    page.until("#members tbody", *NAMES, "alpha (this node)", "direct")
    meshkit.until(lambda: page.text("#members tbody").count("direct") == 4, "four direct tunnels", 40)
    page.until("#agreement", "5 of 5 derive")
    page.until("#map", *NAMES, "eu: 3 members", "us: 2 members")
    assert page.run("return document.querySelectorAll('#map .path.direct').length") == 4
    page.press("#members button", "bravo")
    page.press("#member button", "Why this path?")
    page.until("#why", "bravo")
    page.shots("mesh")
    page.press("#member button", "Close")


def job_runs_before_ones_eyes(page: Browser, alpha: Node) -> None:
    job = meshkit.submit(alpha, flipbook())
    page.show("jobs")
    page.until("#jobs tbody", "flipbook")
    page.show(f"job/{job}")
    page.until("#graph", "split", f"render ({FRAMES})", "film")
    page.until("#job-state", "running")
    page.run("document.getElementById('task-state').value = 'running'")
    page.run("document.getElementById('task-state').dispatchEvent(new Event('change'))")
    page.press("#tasks tbody button", "render[0]")
    page.until("#log", "frame 0 line 3")
    page.run("document.getElementById('task-state').value = ''")
    page.run("document.getElementById('task-state').dispatchEvent(new Event('change'))")
    page.shots("job-running")
    page.until("#job-state", "succeeded", within_s=40)
    page.until("#job-counts", f"{FRAMES + 2} of {FRAMES + 2} tasks ended")
    page.until("#log", "frame 0 done")
    page.until("#log-how", "all of it")
    page.until("#timeline-said", "attempt")
    assert "succeeded" in page.text("#graph")
    page.shots("job-done")
    page.show("jobs")
    page.until("#jobs tbody", f"{FRAMES + 2}/{FRAMES + 2}")


def job_of_another_is_cancelled_by_its_button(page: Browser, alpha: Node, bravo: Node) -> None:
    job = meshkit.submit(bravo, '{"name": "endless", "tasks": {"nap": {"run": "sleep 600"}}}')
    page.show(f"job/{job}")
    page.until("#job-name", "endless")
    page.until("#job-facts", "owned by bravo")
    page.until("#graph", "nap")
    page.until("#tasks tbody", "nap", "running")
    page.press("#job-buttons button", "Cancel")
    page.press("#sure button", "Yes")
    page.until("#said", "endless is cancelled")
    page.until("#job-state", "cancelled")
    assert meshkit.job(alpha, job).state == "cancelled"
    page.show("jobs")
    page.until("#jobs tbody", "cancelled")
    page.shots("jobs")


def node_is_drained_by_its_button(page: Browser, alpha: Node) -> None:
    page.show("capacity")
    page.press("#capacity button", "Drain: bravo")
    page.press("#sure button", "Yes")
    page.until("#said", "bravo takes no new work")
    page.until("#capacity tbody", "drained")
    assert meshkit.peers(alpha)["bravo"].work == "drained"
    page.shots("capacity")


def death_is_seen(page: Browser, victim: Node) -> float:
    page.show("mesh")
    page.until("#members tbody", victim.name)
    meshkit.kill_agent(victim)
    began_s = time.monotonic()
    rows = "[...document.querySelectorAll('#members tbody tr')]"
    row = f"return {rows}.find((a) => a.innerText.includes('{victim.name}')).innerText"
    meshkit.until(
        lambda: "suspect" in str(page.run(row)) or "dead" in str(page.run(row)), "the death is seen", 30
    )
    took_s = time.monotonic() - began_s
    page.shots("death")
    page.show("story")
    page.until("#story", f"{victim.name} is ", "bravo is drained", "job flipbook", "succeeded")
    page.shots("story")
    return took_s


# --- helpers ------------------------------------------------------------


def flipbook() -> str:
    frame = 'for i in 1 2 3 4 5; do echo "frame $index line $i"; sleep 0.5; done; echo "frame $index done"'
    tasks = {
        "split": {"run": "echo split"},
        "render": {"needs": ["split"], "array": f"0-{FRAMES - 1}", "run": frame},
        "film": {"needs": ["render"], "run": "echo film"},
    }
    return msgspec.json.encode({"name": "flipbook", "defaults": {"retries": 2}, "tasks": tasks}).decode()


@contextmanager
def browser(node: Node) -> Iterator[Browser]:
    OUT.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, str(Path(__file__).with_name("browser_driver.py")), str(OUT)]
    with node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "ready"
        try:
            yield Browser(process)
        finally:
            process.stdin.close()
            process.wait(timeout=20)
