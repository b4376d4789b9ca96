"""What an operator sees: Dagster's own web interface in a real browser, over the small country."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import arrangement
from tests.platforms import Place

pytestmark = [pytest.mark.long(100), pytest.mark.timeout(600)]

READY_SECONDS = 240
END_SECONDS = 90
RUN_SECONDS = 200
"""A run of a queue takes some 20 seconds on two idle cores, almost all of it imports."""
CHROMIUM = arrangement.chromium()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=arrangement.NO_BROWSER)
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


PARTITIONS_OF_A_BACKFILL = """
query Partitions($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { partitionNames } }
}
"""

RESOURCES_OF_A_JOB = """
query Resources {
  runConfigSchemaOrError(
    selector: {repositoryName: "__repository__", repositoryLocationName: "popcorn",
               pipelineName: "ingest"}
  ) { ... on RunConfigSchema { allConfigTypes { ... on CompositeConfigType { fields { name } } } } }
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def maps_port() -> int:
    """Where `popcorn ui` is to serve the published maps."""
    return free_port()


@pytest.fixture(scope="module")
def shown_place(tiny, tmp_path_factory) -> Place:
    """A copy of the small country, for runs change it."""
    home = tmp_path_factory.mktemp("ui-home") / "home"
    shutil.copytree(tiny.home, home)
    return Place(home)


@pytest.fixture(scope="module")
def web(shown_place, tmp_path_factory, maps_port):
    """`popcorn ui` over it; its address."""
    tiny = shown_place
    port = free_port()
    log = tmp_path_factory.mktemp("ui") / "dagster.log"
    popcorn = Path(sys.executable).with_name("popcorn")
    command = f"{popcorn} ui --port {port} --maps-port {maps_port}"
    script = f"{command} & echo $! > {log}.pid; wait"  # as operators' scripts do
    with log.open("w") as out:
        server = subprocess.Popen(
            ["bash", "-c", script],
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
        os.kill(int(Path(f"{log}.pid").read_text()), signal.SIGTERM)
        server.wait(END_SECONDS)  # it ends when it is asked to, also in the background of a script
    finally:
        with suppress(ProcessLookupError):
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
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.requests = requests
        yield page
        browser.close()


@needs_browser
def test_the_first_screen_shows_the_runs_of_the_demo(page, web, tmp_path):
    page.goto(web)
    for job in ("country_year", "refresh"):
        link = page.locator(f'a[href="/locations/popcorn/jobs/{job}"]').first
        expect(link).to_be_visible(timeout=60_000)
    page.screenshot(path=tmp_path / "first.png")
    page.goto(f"{web}/locations/popcorn/jobs/country_year/runs")
    expect(page.get_by_text("partition: demo|2020")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=60_000)


@needs_browser
def test_the_launchpad_asks_for_no_secret(page, web):
    page.goto(f"{web}/locations/popcorn/jobs/ingest/playground")
    page.get_by_role("button", name="Launch Run").wait_for(timeout=60_000)
    asked = {"query": RESOURCES_OF_A_JOB}
    reply = page.request.post(f"{web}/graphql", data=asked).json()
    names = re.findall(r'"name": *"([^"]+)"', json.dumps(reply))
    assert "source" in names
    assert not [name for name in names if re.search("key|project|secret|password|token", name)]


@needs_browser
def test_the_asset_graph_shows_every_group(page, web, tmp_path):
    page.goto(f"{web}/asset-groups")
    for group in (
        "imagery", "census", "builtup", "training", "maps", "evaluation", "publication",
    ):  # fmt: skip
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=60_000)
    page.screenshot(path=tmp_path / "graph.png")


@needs_browser
def test_the_latest_map_shows_its_picture(page, web, tmp_path):
    page.goto(f"{web}/assets/population_map?view=overview&partition=demo%7C2021")
    # By its address: the event has no picture, and the web server shows the store's.
    image = page.locator('img[src^="/logs/pictures/population_map/demo/2021/"]').first
    image.wait_for(timeout=60_000)
    drawn = "image => image.complete && image.naturalWidth > 800"
    page.wait_for_function(drawn, arg=image.element_handle(), timeout=60_000)
    assert page.request.get(f"{web}{image.get_attribute('src')}").ok
    page.screenshot(path=tmp_path / "map.png")


@needs_browser
def test_the_published_maps_are_shown_beside_it(page, web, maps_port, tmp_path):
    address = f"http://127.0.0.1:{maps_port}/"
    page.goto(f"{web}/assets/publication?view=overview")
    expect(page.locator(f'a[href="{address}"]').first).to_be_visible(timeout=60_000)
    maps = page.context.browser.new_page()
    asked: list[str] = []
    maps.on("request", lambda request: asked.append(request.url))
    maps.goto(f"{address}#demo/2021/people")
    maps.wait_for_selector("body[data-drawn]", timeout=60_000)
    maps.screenshot(path=tmp_path / "maps.png")
    maps.focus("#map canvas")
    maps.keyboard.press("Enter")
    maps.wait_for_selector("#answer[data-ready]", timeout=60_000)
    assert maps.locator("#answer table.cell td").first.get_attribute("data-value")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    maps.close()


@needs_browser
def test_the_interface_asks_nobody_outside_this_machine(page, web):
    page.goto(f"{web}/runs")
    page.get_by_text("refresh").first.wait_for(timeout=60_000)
    inside = (web, web.replace("http", "ws"), "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(inside)] == []


@pytest.fixture(scope="module")
def backfill(page, web) -> str:
    """The id of a backfill of two years, launched as an operator does it.

    The daemon looks after backfills every half minute: it is launched before the tests that other
    runs may pass beside, and looked at after them.
    """
    page.goto(f"{web}/assets/census_units?view=overview")
    page.get_by_role("button", name="Materialize").first.click(timeout=60_000)
    dialog = page.get_by_role("dialog")
    years = dialog.get_by_placeholder("ex: 2016")
    years.wait_for(timeout=60_000)
    dialog.get_by_text("Select a partition").first.click()
    page.get_by_text("demo", exact=True).first.click()
    dialog.get_by_text("Launch runs to materialize").click()
    years.fill("[2020...2021]")
    years.press("Enter")
    dialog.get_by_text("2 partitions", exact=True).wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    told = page.get_by_text("Created backfill").first
    told.wait_for(timeout=60_000)
    return told.inner_text().split()[2]


@needs_browser
@pytest.mark.usefixtures("backfill")
def test_a_partition_is_materialised_from_the_launchpad_and_its_checks_are_shown(page, web):
    page.goto(f"{web}/locations/popcorn/jobs/census/playground")
    partition = page.get_by_placeholder("Partition")
    partition.click(timeout=60_000)
    partition.fill("demo|2021")
    page.get_by_text("demo|2021", exact=True).first.click()
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*-*", timeout=60_000)
    run = page.url.rpartition("/")[2][:8]
    page.get_by_text("Success", exact=True).first.wait_for(timeout=RUN_SECONDS * 1000)

    page.goto(f"{web}/assets/census_units?view=events")
    page.get_by_text(run).first.wait_for(timeout=60_000)
    page.get_by_role("tab", name="Checks").or_(page.get_by_text("Checks", exact=True)).first.click()
    page.get_by_text("Checks (7)").wait_for(timeout=60_000)
    # The heading counts the checks that exist; their states come with a later answer, and not while
    # a run of the backfill judges them anew.
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        try:
            expect(page.get_by_text("Succeeded", exact=True)).to_have_count(7, timeout=20_000)
            break
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            page.reload()
            page.get_by_text("Checks (7)").wait_for(timeout=60_000)
    page.get_by_text("unit_pixels", exact=True).first.click()
    page.get_by_text("demo|2021", exact=True).first.wait_for(timeout=60_000)
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible(timeout=60_000)


@needs_browser
def test_a_run_from_the_terminal_is_shown_beside_the_others(page, web, shown_place, tmp_path):
    done = subprocess.run(
        [Path(sys.executable).with_name("popcorn"), "run", "demo", "2021", "--job", "refresh"],
        cwd=shown_place.home,
        env={**os.environ, **shown_place.environment()},
        capture_output=True,
        text=True,
        timeout=2 * RUN_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = re.findall(r"demo\|2021, refresh: done.*\(run ([0-9a-f]{8})\)", done.stdout)
    page.goto(f"{web}/locations/popcorn/jobs/refresh/runs")
    link = page.locator(f'a[href^="/runs/{run}"]').first
    link.wait_for(timeout=60_000)
    page.goto(f"{web}{link.get_attribute('href')}")
    for text in ("demo|2021", "Success"):
        expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
    page.screenshot(path=tmp_path / "run.png")


@needs_browser
def test_pages_say_what_to_look_at_and_what_a_job_is_for(page, web, tmp_path):
    page.goto(f"{web}/assets/hectare_map?view=overview")
    for text in ("Look at", "When it is red:"):
        expect(page.get_by_text(text, exact=True)).to_be_visible(timeout=60_000)
    page.screenshot(path=tmp_path / "asset.png")
    page.goto(f"{web}/locations/popcorn/jobs/refresh")
    expect(page.get_by_text("A map of another year")).to_be_visible(timeout=60_000)
    page.screenshot(path=tmp_path / "job.png")


@needs_browser
def test_a_backfill_of_two_years_completes(page, web, backfill):
    page.goto(f"{web}/runs/b/{backfill}")
    # The numbers are partitions: targeted, in progress, succeeded, failed.
    wanted = ("Status Succeeded", "100% completed 2 0 2 0")
    deadline = time.monotonic() + 2 * RUN_SECONDS
    while True:
        shown = " ".join(page.inner_text("body").split())
        if all(text in shown for text in wanted):
            break
        assert not re.search("Status (Failed|Canceled)", shown), shown
        assert time.monotonic() < deadline, shown
        page.wait_for_timeout(500)
    asked = {"query": PARTITIONS_OF_A_BACKFILL, "variables": {"id": backfill}}
    reply = page.request.post(f"{web}/graphql", data=asked).json()
    partitions = reply["data"]["partitionBackfillOrError"]["partitionNames"]
    assert sorted(partitions) == ["demo|2020", "demo|2021"]
