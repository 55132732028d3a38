"""A hostile page in a real browser, against a whole agent: it gets nothing from the dashboard, the figures or
the port for call-backs. And the honest link, which opens the page.

The person at this browser has the dashboard open, so every attempt rides on a live session. Two names stand
for the attacker: ``evil.example``, another origin, and ``rebound.example``, which first was the attacker's
own and now resolves to 127.0.0.1 (DNS rebinding), so that the browser takes its page and the agent's port for
one origin.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from agents import founded_folder, odd_service, running, settings_of, spec_of, submission, until

from meshpeer.app.agent import Agent
from meshpeer.app.cli.dashboard import leading_to
from meshpeer.app.options import InitOptions

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OUT = Path(__file__).resolve().parents[2] / "out"
PAGE_S = 30

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="no chromium and chromedriver (scripts/bootstrap --labs)",
)

ATTACK = (Path(__file__).parent / "hostile_page.js").read_text("utf-8")
NOT_EVEN_LOADED = ("events", "web socket", "script", "image", "style")


async def test_a_hostile_page_gets_nothing_and_the_honest_link_opens_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with odd_service() as service, other_site() as evil, browser(folder) as driver:
        hook = {"webhook": {"url": f"{service.url}/do", "body": {"manner": "held"}}}
        async with running(settings_of(folder)) as agent:
            job = await agent.api.submit(submission(spec_of({"speech": hook})))
            await until(lambda: agent.node.scheduler.webhooks.waiting == 1 and bool(service.held))
            await opens_for_the_honest(driver, agent, folder)
            token = service.held[0].rpartition("/")[2]
            port = agent.chores.pages_port
            outcomes = {
                name: await trio.to_thread.run_sync(attack, driver, site, base, token)
                for name, site, base in (
                    ("another origin", f"http://evil.example:{evil}/", f"http://127.0.0.1:{port}"),
                    ("by localhost", f"http://evil.example:{evil}/", f"http://localhost:{port}"),
                    ("rebound", f"http://rebound.example:{port}/", f"http://rebound.example:{port}"),
                )
            }
            # The attempt is as it was: nothing that came counted, although the token was the right one.
            assert agent.node.scheduler.webhooks.waiting == 1
            assert (await agent.api.job(job.id)).state == "running"
            secrets = (agent.chores.access.token, "hermitage", job.id[:8], "meshpeer_links", "speech")
            await still_follows(driver, agent)
            await only_looks_without_the_link(driver, agent)
            await trio.to_thread.run_sync(service.release)
    with capsys.disabled():
        print(table(outcomes))
    assert service.answers["held"] == [200]
    for name, tried in outcomes.items():
        assert len(tried) == 32, name
        for attempt, outcome in tried.items():
            assert not [one for one in secrets if one in outcome], (name, attempt, outcome)
            assert not outcome.startswith("200"), (name, attempt, outcome)
            if attempt.startswith(NOT_EVEN_LOADED):
                assert outcome == "error", (name, attempt, outcome)


async def opens_for_the_honest(driver: Any, agent: Agent, folder: Path) -> None:
    """The link opens the page, as does the file that leads to it; the token leaves the address, and the page
    follows what happens."""
    link = (await agent.api.dashboard()).url
    leading = folder / "dashboard.html"
    leading.write_text(leading_to(link))
    for way in (leading.as_uri(), link):
        await trio.to_thread.run_sync(driver.delete_all_cookies)
        await trio.to_thread.run_sync(driver.get, way)
        text = await page_says(driver, "hermitage (this node)", "1 alive of 1")
        assert await trio.to_thread.run_sync(lambda: driver.current_url) == link.partition("?")[0]
    assert "live" in text
    await is_reached_by_keys(driver)
    await trio.to_thread.run_sync(driver.execute_script, "location.hash = '#jobs'")
    await page_says(driver, "hooks")
    cookies = await trio.to_thread.run_sync(driver.get_cookies)
    assert [(one["httpOnly"], one["sameSite"]) for one in cookies] == [(True, "Strict")]
    assert await trio.to_thread.run_sync(driver.execute_script, "return document.cookie") == ""
    OUT.mkdir(exist_ok=True)
    await trio.to_thread.run_sync(driver.save_screenshot, str(OUT / "dashboard.png"))
    logged = await trio.to_thread.run_sync(driver.get_log, "browser")
    assert not [one for one in logged if "favicon" not in one["message"]], logged


async def still_follows(driver: Any, agent: Agent) -> None:
    """After all that, the session of the person is what it was, and the page shows a new job by itself."""
    await trio.to_thread.run_sync(driver.get, f"http://127.0.0.1:{agent.chores.pages_port}/dashboard/#jobs")
    await page_says(driver, "hooks")
    await agent.api.submit(submission(spec_of({"t": {"run": ["true"]}}, name="afterwards")))
    await page_says(driver, "afterwards", "1/1")


async def only_looks_without_the_link(driver: Any, agent: Agent) -> None:
    """A tab that has the session's cookie and did not come by the link shows all, and orders nothing."""
    await trio.to_thread.run_sync(driver.switch_to.new_window, "tab")
    await trio.to_thread.run_sync(
        driver.get, f"http://127.0.0.1:{agent.chores.pages_port}/dashboard/#capacity"
    )
    await page_says(driver, "hermitage (this node)", "Looking only")
    buttons = "return [...document.querySelectorAll('#capacity button')].map((one) => one.disabled)"
    assert await trio.to_thread.run_sync(driver.execute_script, buttons) == [True]
    post = (
        "fetch('orders', {method: 'POST', headers: {'content-type': 'application/json'}, body: arguments[0]})"
    )
    script = f"const done = arguments[1]; {post}.then((answer) => done(answer.status))"
    order = '{"what": "drain"}'
    assert await trio.to_thread.run_sync(driver.execute_async_script, script, order) == 403
    assert not (await agent.api.status()).node.drained


async def is_reached_by_keys(driver: Any) -> None:
    """Two keys lead from the top of the page to its content."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    active = "return document.activeElement.className || document.activeElement.id"
    for key, focused in ((Keys.TAB, "skip"), (Keys.ENTER, "main")):
        await trio.to_thread.run_sync(ActionChains(driver).send_keys(key).perform)
        assert await trio.to_thread.run_sync(driver.execute_script, active) == focused


async def page_says(driver: Any, *words: str) -> str:
    text = ""
    with trio.fail_after(PAGE_S):
        while True:
            text = await trio.to_thread.run_sync(
                driver.execute_script, "return document.body ? document.body.innerText : ''"
            )
            if all(word in text for word in words):
                return text
            await trio.sleep(0.1)


def attack(driver: Any, site: str, base: str, token: str) -> dict[str, str]:
    """Runs the hostile page at a site against a base; returns what came of each attempt."""
    driver.get(site)
    found = driver.execute_async_script(ATTACK, base, token)
    assert isinstance(found, dict)
    return {str(name): str(outcome) for name, outcome in found.items()}


def table(outcomes: dict[str, dict[str, str]]) -> str:
    lines = [""]
    for name in next(iter(outcomes.values())):
        shown = [" ".join(tried[name].split())[:44] for tried in outcomes.values()]
        lines.append(f"  {name:34} " + " | ".join(f"{one:44}" for one in shown))
    return "\n".join(lines)


# --- helpers ------------------------------------------------------------------------------------------------


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """A headless Chromium with an empty profile, for which the attacker's names are this machine."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = folder / "profile"
    for one in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1100,800",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def other_site() -> Iterator[int]:
    """The attacker's own server; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>win a prize</title><body>win a prize")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def folder() -> Iterator[Path]:
    with founded_folder(InitOptions(name="hermitage")) as path:
        yield path
