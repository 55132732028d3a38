"""The page in a real browser, of tables that are changed under it: what it shows, and what its buttons are
for, is of what is looked at now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from boards import AT, FakeBoard
from pages import Running, dashboard

from meshpeer.app.board.rows import JobRow, MemberRow, TaskRow
from meshpeer.runtime.board import Table, View

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
PAGE_S = 30

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="no chromium and chromedriver (scripts/bootstrap --labs)",
)

MEMBER_BUTTON = "document.querySelector('#members tbody button').click()"
CLOSE = "document.querySelector('.panel:not([hidden]) .head button').click()"
FOCUSED = "return document.activeElement.textContent"
BUTTONS = "return [...document.querySelectorAll('#job-buttons button')].map((one) => one.textContent).join()"
NAMED_T = (
    "const it = document.getElementById('task-name'); it.value = 't'; it.dispatchEvent(new Event('input'))"
)
TASKS_LISTED = "return document.querySelectorAll('#tasks tbody tr[data-key]').length"


@dataclass
class TablesBoard(FakeBoard):
    """Shows the tables that it is given: those of every page, and those of each job."""

    common: dict[str, Table] = field(default_factory=dict)
    jobs: dict[str, Mapping[str, Table]] = field(default_factory=dict)

    async def view(self, job: str, *, narrow: bool) -> View:
        return View({**self.common, **self.jobs.get(job, {})})


async def test_the_page_is_of_what_is_looked_at_now(tmp_path: Path) -> None:
    shown = TablesBoard()
    shown.common["members"] = {"id": member("bravo")}
    with browser(tmp_path) as driver:
        async with dashboard(shown) as it:
            await follows_a_member_that_is_renamed_and_keeps_the_focus(Page(driver, it), shown)
            await shows_of_a_job_nothing_that_is_of_another(Page(driver, it), shown)
            await lists_all_tasks_that_fit_however_late_they_come(Page(driver, it), shown)
            logged = await trio.to_thread.run_sync(driver.get_log, "browser")
    assert not [one for one in logged if "favicon" not in one["message"]], logged


async def follows_a_member_that_is_renamed_and_keeps_the_focus(page: Page, shown: TablesBoard) -> None:
    await page.opens("")
    await page.shows("return document.querySelector('#members tbody th')?.textContent", "bravo")
    await page.runs(MEMBER_BUTTON)
    shown.common["members"] = {"id": member("brave")}
    await page.shows("return document.getElementById('member-name')?.textContent", "brave")
    await page.runs("document.querySelector('#member .buttons button:last-child').click()")
    assert "Drain brave?" in await page.runs("return document.getElementById('sure-what').textContent")
    await page.runs("document.getElementById('sure-no').click()")
    await page.runs(CLOSE)
    assert await page.runs(FOCUSED) == "brave"
    await page.runs("location.hash = '#capacity'")
    label = "return document.querySelector('#capacity button')?.ariaLabel"
    await page.shows(label, "Drain: brave")
    shown.common["members"] = {"id": member("bravest")}
    await page.shows(label, "Drain: bravest")


async def shows_of_a_job_nothing_that_is_of_another(page: Page, shown: TablesBoard) -> None:
    shown.jobs["jone"] = {"job": {"jone": job("one")}, "tasks": tasks(3)}
    shown.jobs["jtwo"] = {"job": {"jtwo": job("", trouble="bravo can't be asked")}}
    for other, said in (("jtwo", "bravo can't be asked"), ("jnone", "")):
        await page.runs("location.hash = '#job/jone'")
        await page.shows(BUTTONS, "Why?,Pause,Cancel")
        # Before an answer can have come.
        left = f"location.hash = '#job/{other}'; dispatchEvent(new Event('hashchange'));"
        assert await page.runs(left + BUTTONS) == ""
        assert await page.runs(TASKS_LISTED) == 0
        await page.shows("return document.getElementById('job-counts').textContent", said)
        for place in ("job-buttons", "job-facts", "job-bar"):
            assert await page.runs(f"return document.getElementById('{place}').childNodes.length") == 0


async def lists_all_tasks_that_fit_however_late_they_come(page: Page, shown: TablesBoard) -> None:
    await page.runs("location.hash = '#job/jone'")
    said = "return document.getElementById('task-count').textContent"
    await page.shows(said, "3 tasks")
    await page.runs(NAMED_T)
    shown.jobs["jone"] = {"job": {"jone": job("one")}, "tasks": tasks(5)}
    await page.shows(said, "5 tasks")
    await page.runs("document.querySelector('#tasks tbody tr[data-key=\"4\"] button').click()")
    await page.runs(CLOSE)
    assert await page.runs(FOCUSED) == "t[4]"


# --- helpers ------------------------------------------------------------


@dataclass
class Page:
    driver: Any
    running: Running

    async def opens(self, place: str) -> None:
        address = f"http://127.0.0.1:{self.running.port}{self.running.path_with_token}{place}"
        await trio.to_thread.run_sync(self.driver.get, address)

    async def runs(self, script: str) -> Any:
        return await trio.to_thread.run_sync(self.driver.execute_script, script)

    async def shows(self, script: str, wanted: str) -> None:
        """Waits until a script returns what is wanted."""
        found = None
        with trio.move_on_after(PAGE_S):
            while True:
                found = await self.runs(script)
                if found == wanted:
                    return
                await trio.sleep(0.1)
        assert found == wanted


def member(name: str) -> MemberRow:
    return MemberRow(name=name, rank=0, work="accepts")


def job(name: str, *, trouble: str = "") -> JobRow:
    return JobRow(name=name, state="running", owner="bravo", submitted=AT, running=1, trouble=trouble)


def tasks(count: int) -> Table:
    return {str(number): TaskRow(id=f"t[{number}]", state="waiting") for number in range(count)}


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """A headless Chromium with an empty profile."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for one in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1100,800",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(PAGE_S)
    try:
        yield driver
    finally:
        driver.quit()
