"""A headless Chromium on a lab's machine, where the page is; told by lines of JSON what to do.

    python browser_driver.py FOLDER       FOLDER: where pictures go

Each line of standard input is one order, answered by one line: ``{"go": ADDRESS}``; ``{"run": SCRIPT}``,
which answers what the script returns; ``{"shots": NAME, "checks": SCRIPT}``, which takes pictures, light and
dark, wide and 390 px, and answers what the script found at each; ``{"logged": true}``: what the console said.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selenium import webdriver

WIDTHS = {"wide": 1280, "phone": 390}
DRAWN_S = 0.25
HEIGHT_MAX = 2400


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="meshpeer-test-", ignore_cleanup_errors=True) as profile:
        drive(folder, profile)


def drive(folder: Path, profile: str) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for one in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--window-size=1280,900",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(driver, folder, json.loads(line))), flush=True)
    finally:
        driver.quit()


def answer(driver: Any, folder: Path, order: dict[str, str]) -> object:
    match order:
        case {"go": address}:
            driver.get(address)
            return True
        case {"run": script}:
            return driver.execute_script(script)
        case {"shots": name, "checks": script}:
            return shots(driver, folder, name, script)
        case {"logged": _}:
            return [one["message"] for one in driver.get_log("browser") if "favicon" not in one["message"]]
        case _:
            return f"what is {order}?"


def shots(driver: Any, folder: Path, name: str, script: str) -> dict[str, list[str]]:
    found = {}
    for size, width in WIDTHS.items():
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for theme in ("light", "dark"):
            feature = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
            time.sleep(DRAWN_S)
            picture = f"dashboard-{name}-{size}-{theme}"
            (folder / f"{picture}.png").write_bytes(whole_page(driver, width))
            found[picture] = driver.execute_script(script)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found


def whole_page(driver: Any, width: int) -> bytes:
    height = min(driver.execute_script("return document.documentElement.scrollHeight"), HEIGHT_MAX)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return base64.b64decode(taken["data"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
