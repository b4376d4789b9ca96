"""Published maps in a browser: the store's beside `popcorn ui`, and `popcorn view` of a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.commands.maps import of_store
from popcorn_assets.store.versions import Address, Store
from tests.commands.test_ui import free_port

STARTED_S = 120


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Store:
    """A store with two years of a country, of which the page knows no more than it must."""
    store = Store(tmp_path_factory.mktemp("store"))
    for year in (2021, 2020):
        publish(store, "abc_d", year, f"raster of {year}")
    return store


def publish(store: Store, code: str, year: int, content: str) -> None:
    address = Address("publication", code, year)
    entry = {"code": code, "year": year, "name": "Abc", "title": f"Abc {year}"}
    with store.draft(address) as draft:
        (draft / "web").mkdir()
        (draft / f"{code}_{year}_population_100m.tif").write_text(content)
        (draft / f"{code}_{year}_change_{year - 1}_{year}_100m.tif").write_text("more people")
        (draft / "web" / f"{code}_{year}_units_0.json").write_text("{}")
        (draft / "web" / "maps.json").write_text(json.dumps({"schema": 1, "maps": [entry]}))
        store.publish(address, draft, {"inputs": [], "checks": [], "facts": {}, "parameters": {}})


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=5) as reply:
        return reply.read()


def test_the_current_publications_of_a_store_are_one_folder_of_maps(published):
    find = of_store(published.root)
    told = json.loads(find("web/maps.json").content)["maps"]
    assert [(one["code"], one["year"]) for one in told] == [("abc_d", 2020), ("abc_d", 2021)]
    assert b"<title>" in find("index.html").content
    assert find("web/page.mjs").content
    assert find("abc_d_2021_population_100m.tif").file.read_text() == "raster of 2021"
    assert find("abc_d_2021_change_2020_2021_100m.tif").file.read_text() == "more people"
    assert find("abc_d_2020_change_2019_2020_100m.tif").file.read_text() == "more people"
    assert find("web/abc_d_2020_units_0.json").file.read_text() == "{}"
    publish(published, "abc_d", 2021, "a newer one")
    assert find("abc_d_2021_population_100m.tif").file.read_text() == "a newer one"


@pytest.mark.parametrize(
    "name",
    [
        "abc_d_2019_population_100m.tif", "abc_d_2021_.manifest", "xyz_2021_population_100m.tif",
        "manifest.json", "web/../abc_d_2021_population_100m.tif", "abc_d_2021_../LATEST",
        "../publication", "web/abc_d_2021_population_100m.tif", "abc_d_9999_x", "web/vendor/../x",
    ],
)  # fmt: skip
def test_nothing_else_of_a_store_can_be_asked_for(published, name):
    assert of_store(published.root)(name) is None


def test_a_store_without_publications_has_a_page_without_maps(tmp_path):
    find = of_store(tmp_path / "none yet")
    assert json.loads(find("web/maps.json").content) == {"schema": 1, "maps": []}


def test_the_server_beside_ends_with_the_program_that_started_it(published):
    port = free_port()
    code = (
        "import sys, time; from pathlib import Path\n"
        "from popcorn_assets.commands.maps import start_beside\n"
        "start_beside(Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]))\n"
        "import os; os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(published.root), str(port)]) as program:
        address = f"http://127.0.0.1:{port}/"
        assert b"<title>" in _when_there(address)
        assert json.loads(get(f"{address}web/maps.json"))["maps"]
        os.kill(program.pid, signal.SIGKILL)
    _until_gone(address)


def _when_there(address: str) -> bytes:
    deadline = time.monotonic() + STARTED_S
    while True:
        try:
            return get(address)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _until_gone(address: str) -> None:
    deadline = time.monotonic() + STARTED_S
    while time.monotonic() < deadline:
        try:
            get(address)
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("it still answers")


def test_view_shows_a_folder_and_refuses_what_is_none(tmp_path):
    refused = CliRunner().invoke(cli, ["view", str(tmp_path)])
    assert "this is no exported folder" in str(refused.exception)
    (tmp_path / "index.html").write_text("<title>x</title>")
    port = free_port()
    popcorn = Path(sys.executable).with_name("popcorn")
    with subprocess.Popen(
        [popcorn, "view", str(tmp_path), "--port", str(port)], stdout=subprocess.PIPE, text=True
    ) as program:
        assert _when_there(f"http://127.0.0.1:{port}/") == b"<title>x</title>"
        again = CliRunner().invoke(cli, ["view", str(tmp_path), "--port", str(port)])
        assert f"popcorn view --port {port + 1}" in str(again.exception)
        program.send_signal(signal.SIGINT)
        assert program.wait(STARTED_S) == 0
        assert f"http://127.0.0.1:{port}/ shows {tmp_path}" in program.stdout.read()
