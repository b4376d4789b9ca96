"""The web map's files in a folder, and the small server that shows them."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import threading
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from popcorn_ml.errors import StoreError
from popcorn_ml.publishing.web import write_web_map
from popcorn_ml.publishing.web.entries import proj_text
from popcorn_ml.publishing.web.page import (
    STATIC,
    STATIC_SHA256,
    VENDOR,
    page_files,
    static_digest,
)
from popcorn_ml.publishing.web.server import MapServer, of_folder
from tests.publishing.made_folder import DEGREES, make_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "maps"
    make_folder(folder, "deg", 2022, grid=DEGREES, whole=False)
    found = make_folder(folder)
    write_web_map(folder)
    return found


@pytest.fixture(scope="module")
def server(made):
    (made.folder.parent / "secret.txt").write_text("nobody's business")
    (made.folder / ".hidden").write_text("nor this")
    (made.folder / "out").symlink_to(made.folder.parent)
    with MapServer("127.0.0.1", 0, of_folder(made.folder)) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def ask(server: MapServer, path: str, method: str = "GET", **headers: str):
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=10)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_vendored_files_are_those_that_are_stated():
    stated = (STATIC / "vendor" / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", stated, re.M))
    code = {name for name in VENDOR if name.endswith((".js", ".mjs", ".css"))}
    assert set(rows) == code
    for name, digest in rows.items():
        content = (STATIC / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name


def test_a_change_of_the_page_or_the_report_changes_the_code_version_of_publications():
    assert static_digest() == STATIC_SHA256, "write this digest into publishing/web/page.py"


def test_every_file_of_the_page_is_written():
    names = {path.name for path in STATIC.iterdir() if path.is_file()} - {"index.html"}
    vendor = {path.name for path in (STATIC / "vendor").iterdir()}
    written = page_files()
    assert {name.removeprefix("web/") for name in written} == names | {
        f"vendor/{n}" for n in vendor
    }


def test_maps_of_one_folder_share_a_page_and_the_same_folder_gives_the_same_bytes(made):
    told = json.loads((made.folder / "web" / "maps.json").read_text("utf-8"))["maps"]
    assert [(one["code"], one["year"]) for one in told] == [("deg", 2022), ("tst", 2021)]
    before = {path: path.read_bytes() for path in (made.folder / "web").rglob("*.json")}
    (made.folder / "web" / "of_an_earlier_page.mjs").write_text("")
    write_web_map(made.folder)
    assert {path: path.read_bytes() for path in before} == before
    assert not (made.folder / "web" / "of_an_earlier_page.mjs").exists()


def test_a_missing_file_and_foreign_facts_are_named(made, tmp_path):
    other = make_folder(tmp_path / "other", whole=False)
    other.path("builtup").unlink()
    with pytest.raises(StoreError, match=r"tst_2021_builtup_10m\.tif"):
        write_web_map(other.folder)
    (tmp_path / "other" / "tst_2021_facts.json").write_text('{"code": "abc", "year": 2020}')
    with pytest.raises(StoreError, match="expected: JSON with the country and year"):
        write_web_map(other.folder)


@pytest.mark.parametrize(
    ("crs", "west", "north", "step"),
    [
        ("EPSG:32736", 312300.0, 9755700.0, 10.0),
        ("EPSG:4326", 31.3, -2.2, 9e-5),
        ("EPSG:21096", 312300.0, 9755700.0, 10.0),  # Arc 1960: three hundred metres off WGS 84
        ("EPSG:3035", 4321000.0, 3210000.0, 10.0),
        ("ESRI:54009", 1000000.0, 4000000.0, 10.0),
    ],
)
def test_the_page_puts_places_where_proj_does(crs, west, north, step):
    grid = {"crs": crs, "west": west, "north": north, "step": step, "width": 400, "height": 300}
    text = proj_text(grid)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(west, north)
    back = Transformer.from_crs("EPSG:4326", text, always_xy=True).transform(lon, lat)
    assert back == pytest.approx((west, north), abs=step / 10)


def test_a_projection_that_the_page_has_not_is_refused():
    crs = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.0174"
    grid = {"crs": crs, "west": 0.0, "north": 2.0, "step": 1e-4, "width": 400, "height": 300}
    with pytest.raises(StoreError, match="give the country a UTM zone"):
        proj_text(grid)


# The server ---------------------------------------------------------------------------------------


@given(first=st.integers(0, 5000), length=st.integers(1, 5000))
def test_a_range_is_that_part_of_the_file(server, made, first, length):
    content = made.path("population").read_bytes()
    name = f"/{made.path('population').name}"
    status, headers, body = ask(server, name, Range=f"bytes={first}-{first + length - 1}")
    if first < len(content):
        assert (status, body) == (206, content[first : first + length])
        assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(content)}"
    else:
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")


def test_the_end_of_a_file_whole_files_and_heads(server, made):
    content = made.path("population").read_bytes()
    name = f"/{made.path('population').name}"
    assert ask(server, name, Range="bytes=-10")[::2] == (206, content[-10:])
    assert ask(server, name, Range="bytes=10-")[::2] == (206, content[10:])
    assert ask(server, name, Range="bytes=0-1,5-6")[::2] == (200, content)  # several: the whole
    assert ask(server, name, "HEAD")[::2] == (200, b"")
    status, headers, body = ask(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>" in body


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/web/../../secret.txt",
        "//etc/passwd", "/%00", "/.hidden", "/out/secret.txt", "/web/..%5c..%5csecret.txt", "/web",
        "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_but_the_folders_files_can_be_asked_for(server, path):
    status, _, body = ask(server, path)
    assert (status, body) == (404, b"")


def test_it_is_read_only(server):
    for method in ("PUT", "POST", "DELETE"):
        assert ask(server, "/index.html", method)[0] == 501
