"""What an operator sees: Dagster's own web interface in a real browser, over the small country."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(400)]

READY_SECONDS = 120
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def web(tiny, tmp_path_factory):
    """`popcorn ui` over the small country; the address of its web server."""
    port = free_port()
    log = tmp_path_factory.mktemp("ui") / "dagster.log"
    command = [Path(sys.executable).with_name("popcorn"), "ui", "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            cwd=tiny.home,
            env={**os.environ, **tiny.environment()},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(address, server, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait_until_ready(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/server_info", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"not ready after {READY_SECONDS} s:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(web):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.requests = requests
        yield page
        browser.close()


@needs_browser
def test_the_asset_graph_shows_every_group(page, web, tmp_path):
    page.goto(f"{web}/asset-groups")
    for group in ("imagery", "census", "training", "maps", "evaluation"):
        page.get_by_text(group, exact=True).first.wait_for(timeout=60_000)
    page.screenshot(path=tmp_path / "graph.png")


@needs_browser
def test_the_latest_map_shows_its_picture(page, web, tmp_path):
    page.goto(f"{web}/assets/population_map?view=overview&partition=demo%7C2021")
    page.get_by_text("[Show Markdown]").first.click(timeout=60_000)
    image = page.locator('img[src^="data:image/png;base64"]').first
    image.wait_for(timeout=60_000)
    assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    page.screenshot(path=tmp_path / "map.png")


@needs_browser
def test_the_interface_asks_nobody_outside_this_machine(page, web):
    page.goto(f"{web}/runs")
    page.get_by_text("refresh").first.wait_for(timeout=60_000)
    inside = (web, web.replace("http", "ws"), "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(inside)] == []
