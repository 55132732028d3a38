#!/usr/bin/env python3
"""Measures the dashboard in Chromium: a simulated mesh of many nodes, and a job of many tasks.

scripts/bench/dashboard.py                     200 nodes, 10,000 tasks
scripts/bench/dashboard.py --shots out         pictures too, light and dark, wide and 390 px
scripts/bench/dashboard.py --serve             no measurement: prints the link and goes on until Ctrl-C

The page is the real one behind the real server on loopback, with its session; only what it shows is made up:
members that turn suspect and come back, round trips that move, 400 tasks a second that end. Printed are the
first paint of the page of members and of the page of the job (Paint Timing, W3C), what the browser's scripts
take for an update (User Timing: applying the differences, and drawing), and the bytes of the differences.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import trio

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "adapters" / "control"))

from fake_control_api import make_counts, make_job, make_peer, make_status  # noqa: E402

from meshpeer.adapters.web.access import Access  # noqa: E402
from meshpeer.adapters.web.dashboard import Dashboard  # noqa: E402
from meshpeer.adapters.web.server import Site, serve_pages  # noqa: E402
from meshpeer.adapters.web.snapshot import Snapshot  # noqa: E402
from meshpeer.app.board.build import Room, Seen, map_tables, mesh_tables  # noqa: E402
from meshpeer.app.board.job import GraphTables  # noqa: E402
from meshpeer.app.board.rows import MemberRow, TaskRow, TryRow  # noqa: E402
from meshpeer.app.board.story import tell  # noqa: E402
from meshpeer.runtime.board import Order, Table, View, differences  # noqa: E402
from meshpeer.runtime.control import LogPiece, MemberCounts, Plan, Why  # noqa: E402
from meshpeer.runtime.job_docs import GraphTask, JobGraph, JobWhy  # noqa: E402

REGIONS = ("eu-west", "eu-north", "us-east", "us-west", "asia", "africa", "home", "office")
SLOTS, TASK_S = 4, 2.0
ENDS_A_S = 400.0
JOB = "jbench2345672345672a"
LOOKS = 25
TRACED = ("firstPaint", "update")


class BenchBoard:
    """A board whose mesh and job go on with the clock."""

    def __init__(self, nodes: int, tasks: int, seed: int) -> None:
        self._random = random.Random(seed)
        self.began_s = time.time()
        self._at = -1.0
        self._tasks = tasks
        self._names = [f"node-{number:03}" for number in range(nodes)]
        self._regions = [REGIONS[number % len(REGIONS)] for number in range(nodes)]
        self._hubs = {region: self._names[at] for at, region in enumerate(REGIONS[:nodes])}
        self._standbys = {region: self._names[at + 8] for at, region in enumerate(REGIONS) if at + 8 < nodes}
        self._rows: dict[str, TaskRow] = {str(at): self._task(at, 0) for at in range(tasks)}
        self._view = View()
        self._graph = GraphTables()
        self._story: dict[str, Any] = {}
        self.sizes: list[int] = []

    async def view(self, job: str, *, narrow: bool) -> View:
        now_s = time.time() - self.began_s
        if now_s - self._at > 0.4:
            self._at = now_s
            self._go_on(now_s)
        members = {key: row for key, row in self._view.table("members").items() if isinstance(row, MemberRow)}
        tables = {**self._view.tables, **map_tables(members, narrow=narrow)}
        return View({**tables, **(self._job(now_s) if job else {})})

    async def log(self, job: str, task: str, stream: str, offset: int, attempt: int) -> LogPiece:
        await trio.sleep(0.2)
        data = b"".join(b"frame %d of 9000 rendered\n" % number for number in range(offset, offset + 20))
        return LogPiece(data=data, offset=offset + 20, finished=False, attempt=1, node="node-004")

    async def why_member(self, name: str) -> Why:
        raise NotImplementedError

    async def why_job(self, job: str, task: str) -> JobWhy:
        raise NotImplementedError

    async def order(self, order: Order) -> str:
        return f"{order.what} is simulated"

    # --- the mesh -------------------------------------------------------------------------------------------

    def _go_on(self, now_s: float) -> None:
        states = {at: "suspect" for at in range(1, len(self._names)) if at % 67 == int(now_s) % 67}
        states |= dict.fromkeys(range(41, len(self._names), 90), "dead")
        peers = [self._peer(at, states.get(at, "alive")) for at in range(1, len(self._names))]
        dead = sum(one.state == "dead" for one in peers)
        suspect = sum(one.state == "suspect" for one in peers)
        status = make_status()
        node = msgspec.structs.replace(
            status.node, id="id-0", name=self._names[0], region=self._regions[0], slots=2
        )
        total = len(self._names)
        counts = MemberCounts(total=total, alive=total - dead - suspect, suspect=suspect, dead=dead, left=0)
        mesh = msgspec.structs.replace(status.mesh, topology_mode="regional")
        plan = Plan(
            mode="regional",
            hub=None,
            hubs=tuple(self._hubs.values()),
            peers=(),
            routes=(),
            changes=(),
            standbys=tuple(self._standbys.values()),
        )
        seen = Seen(
            status=msgspec.structs.replace(status, node=node, members=counts, mesh=mesh),
            peers=peers,
            plan=plan,
            rooms={
                f"id-{at}": Room(slots=SLOTS, memory=8 << 30, resources={}) for at in range(len(self._names))
            },
            jobs=[self._job_doc(now_s)],
            now_unix_s=time.time(),
        )
        new = View(mesh_tables(seen))
        for row in tell(self._view, new, time.time()):
            self._story[str(len(self._story))] = row
        self._story = dict(list(self._story.items())[-400:])
        before, self._view = self._view, View({**new.tables, "story": dict(self._story)})
        self.sizes.append(len(msgspec.json.encode(differences(before, self._view))))

    def _peer(self, at: int, state: str) -> Any:
        region, name = self._regions[at], self._names[at]
        near = region == self._regions[0] or name in self._hubs.values()
        path = "none" if state == "dead" else "direct" if near else "hub"
        return make_peer(
            id=f"id-{at}",
            name=name,
            ipv4=f"10.1.{at // 250}.{at % 250 + 1}",
            work="accepts",
            region=region,
            state=state,
            path=path,
            via=self._hubs[region] if path == "hub" else "",
            rtt_ms=self._random.uniform(2, 90),
            because="no answer for 3 s" if state != "alive" else "answers",
            observers=("node-001", "node-009") if state == "suspect" else (),
        )

    # --- the job --------------------------------------------------------------------------------------------

    def _job_doc(self, now_s: float) -> Any:
        done, running = self._progress(now_s)
        counts = make_counts(
            total=self._tasks, succeeded=done, running=running, ready=self._tasks - done - running
        )
        return make_job(id=JOB, name="frames", tasks=counts)

    def _progress(self, now_s: float) -> tuple[int, int]:
        done = min(self._tasks, int(now_s * ENDS_A_S))
        return done, min(self._tasks - done, SLOTS * len(self._names))

    def _job(self, now_s: float) -> Mapping[str, Table]:
        done, running = self._progress(now_s)
        changed = {}
        for at in range(self._tasks):
            state = 2 if at < done else 1 if at < done + running else 0
            key = str(at)
            if self._rows[key].state != ("ready", "running", "succeeded")[state]:
                changed[key] = self._task(at, state)
        if changed:
            self._rows = {**self._rows, **changed}
        states = {"succeeded": done, "running": running, "ready": self._tasks - done - running}
        graph = JobGraph(
            job=JOB,
            name="frames",
            state="running",
            tasks=(
                GraphTask(name="split", count=1, array=False, needs=(), states={"succeeded": 1}),
                GraphTask(name="render", count=self._tasks, array=True, needs=("split",), states=states),
                GraphTask(name="audio", count=1, array=False, needs=("split",), states={"running": 1}),
                GraphTask(
                    name="film", count=1, array=False, needs=("render", "audio"), states={"waiting": 1}
                ),
            ),
        )
        row = {JOB: mesh_tables_job(self._job_doc(now_s), self._tasks)}
        return {**self._graph.look(graph), "tasks": self._rows, "job": row}

    def _task(self, at: int, state: int) -> TaskRow:
        node = self._names[at % len(self._names)]
        ended_s = self.began_s + at / ENDS_A_S
        started = ended_s - TASK_S * (0.4 + (at * 37 % 100) / 100)
        known = TryRow(
            node=node,
            state="running" if state == 1 else "succeeded",
            start=round(started, 3),
            end=round(ended_s, 3) if state == 2 else 0.0,
            stolen_from="",
        )
        return TaskRow(
            id=f"render[{at}]",
            state=("ready", "running", "succeeded")[state],
            node=node if state else "",
            tries=(known,) if state else (),
            exit_code=0 if state == 2 else None,
        )


def mesh_tables_job(job: Any, shown: int) -> Any:
    from meshpeer.app.board.build import job_row

    return job_row(job, shown=shown)


# --- the browser ----------------------------------------------------------------------------------------


def measure(link: str, shots: Path | None) -> dict[str, dict[str, float]]:
    """Opens both pages anew, lets them follow, and returns figures of each in milliseconds."""
    folder = Path(tempfile.mkdtemp(prefix="meshpeer-bench-"))
    driver = browser(folder)
    try:
        driver.get(link)
        base, found = link.partition("?")[0], {}
        for name, address, wanted in (
            ("members", f"{base}#mesh", "#members tbody tr:nth-child(200)"),
            ("job", f"{base}#job/{JOB}", "#tasks tbody tr[aria-rowindex]"),
        ):
            driver.get("about:blank")
            driver.get(address)
            until(driver, f"return document.querySelector({wanted!r}) !== null")
            shown_ms = driver.execute_script("return performance.now()")
            until(driver, f"return performance.getEntriesByName('update').length >= {LOOKS}")
            found[name] = figures(driver) | {"all shown by": shown_ms}
            if shots is not None:
                take_shots(driver, shots, name)
        if shots is not None:
            for name in ("jobs", "capacity", "story"):
                driver.get(f"{base}#{name}")
                time.sleep(1.5)
                take_shots(driver, shots, name)
        return found
    finally:
        driver.quit()
        shutil.rmtree(folder, ignore_errors=True)


def figures(driver: Any) -> dict[str, float]:
    paint = driver.execute_script(
        "return performance.getEntriesByType('paint').map((one) => [one.name, one.startTime])"
    )
    updates = driver.execute_script(
        "return performance.getEntriesByName('update').map((one) => one.duration)"
    )
    timelines = driver.execute_script(
        "return performance.getEntriesByName('timeline').map((one) => one.duration)"
    )
    # The first few bring the whole state; what follows are differences.
    first, later = updates[:8], sorted(updates[8:])
    found = dict(paint) | {
        "update: whole state, the longest": max(first),
        "update: median": later[len(later) // 2],
        "update: the longest": later[-1],
    }
    return found | ({"timeline: the longest slice": max(timelines)} if timelines else {})


def browser(folder: Path) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for one in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--window-size=1280,900",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def until(driver: Any, script: str, bound_s: float = 60.0) -> None:
    deadline = time.monotonic() + bound_s
    while not driver.execute_script(script):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {bound_s:g} s: {script}; {driver.get_log('browser')}")
        time.sleep(0.05)


def take_shots(driver: Any, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for width, size in ((1280, "wide"), (390, "phone")):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for theme in ("light", "dark"):
            feature = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
            time.sleep(1.2)
            driver.save_screenshot(str(folder / f"dashboard-{name}-{size}-{theme}.png"))
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# --- putting it together --------------------------------------------------------------------------------


async def run(options: argparse.Namespace) -> None:
    board = BenchBoard(options.nodes, options.tasks, options.seed)
    access = Access(os.urandom, time.monotonic)

    def look() -> Snapshot:
        raise NotImplementedError

    async def receive(token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        return 404, "no call-backs here"

    site = Site(look=look, receive=receive, dashboard=Dashboard(access=access, board=board))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_pages, site, 0)
        link = access.link(port)
        if options.serve:
            print(link, flush=True)
            await trio.sleep_forever()
        found = await trio.to_thread.run_sync(measure, link, options.shots)
        nursery.cancel_scope.cancel()
    print(f"{options.nodes} nodes, {options.tasks:,} tasks; times in ms")
    for page, figures_of_page in found.items():
        for name, value in figures_of_page.items():
            print(f"  {page:8} {name:34} {value:8.1f}")
    sizes = sorted(board.sizes[1:])
    median_kib, most_kib = sizes[len(sizes) // 2] / 1024, sizes[-1] / 1024
    print(f"  differences of the mesh, KiB: median {median_kib:.1f}, most {most_kib:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shots", type=Path, metavar="FOLDER")
    parser.add_argument("--serve", action="store_true")
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
