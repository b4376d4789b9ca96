"""Names and paths from outside: where each kind may lead, tried with a table of attacks."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from pydantic import ValidationError

from popcorn_assets.country import MAX_BYTES, PACKAGED, load_country
from popcorn_assets.paths import given_path
from popcorn_assets.store.versions import LATEST, MANIFEST, Address, Store, digests
from popcorn_ml import raster
from popcorn_ml.census import archive
from popcorn_ml.census.files import Files
from popcorn_ml.census.settings import CensusSettings, CountSettings
from popcorn_ml.edges import check_address, check_name, check_path, within
from popcorn_ml.errors import CensusError, ConfigError, ImageryError, PopcornError, StoreError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.assets import AssetReader
from popcorn_ml.imagery.boundary import outline
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.ee_export import _own_name
from popcorn_ml.imagery.nearest import TileCoordinates
from popcorn_ml.imagery.remote import AssetLost
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source import Lost, SeasonRequest, Traffic
from popcorn_ml.imagery.stac_items import PROFILES, scene_from_item

GRID = Grid("EPSG:32736", 312300.0, 9755700.0, 10.0, 20, 20)

TRAVERSALS = ["..", "../x", "a/../../x", "a/..", "../../../etc/passwd", "..\\x", "a\\..\\..\\x"]
LOOKALIKES = ["．．/x", "‥/x", "a／../x", "a∕../../x", "＼x", "a/．./x"]
INVISIBLE = ["a\0b", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u200bb", "\ufeffa", "a\u2028b", "\ud800"]
LONG = ["x" * 300, "é" * 150, "/".join(["abcdefghi"] * 150)]
ADDRESSES = [
    "/vsicurl/http://h/a.tif", "/VSICURL/http://h/a", "/vsizip/a.zip/b.tif", "http://h/a.tif",
    "file:///etc/passwd", "s3://bucket/a",
]  # fmt: skip
PLACEHOLDERS = ["{country}", "{year.__class__}", "{0}", "{year!r}", "a{", "}", "{{year}}/x"]


# What may be written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [*TRAVERSALS, *LOOKALIKES, *INVISIBLE, *LONG, *ADDRESSES, *PLACEHOLDERS, ""], ids=ascii
)
def test_no_path_of_a_country_file(text):
    with pytest.raises(ValueError, match="expected the path"):
        check_path(text)


@pytest.mark.parametrize(
    "text",
    ["demo/items.json", "counts_{year}.csv", "{year}/a b.tif", "Communes d'été.gpkg", "人口.csv",
     "/data/disk/a.tif", "a..b/c...d.tif", "~/x", "a;b|c&d.csv", "%2e%2e/x", "$HOME/x"],
)  # fmt: skip
def test_paths_that_are_only_odd_are_taken_as_they_are(text):
    assert check_path(text) == text  # nothing expands ~, $ or %


@pytest.mark.parametrize(
    "text",
    [*TRAVERSALS, *LOOKALIKES[:1], *INVISIBLE, *LONG[:2], "a/b", "/a", "", ".", ".hidden"],
    ids=ascii,
)
def test_no_name(text):
    with pytest.raises(ValueError, match="expected a name"):
        check_name(text)


@pytest.mark.parametrize(
    "text",
    ["ftp://h/x", "file:///etc/passwd", "h/x", "https://", "https://u:p@h/x", "https://t@h",
     "https://h/x?key=1", "https://h/x#f", "/vsicurl/http://h", "javascript:x"],
)  # fmt: skip
def test_no_address(text):
    with pytest.raises(ValueError, match="address"):
        check_address(text)


def _country(folder: Path, place: str, value: object) -> Path:
    """The demo's file with one value changed, `place` being its keys with dots."""
    data = yaml.safe_load((PACKAGED / "demo.yaml").read_text("utf-8"))
    *way, last = place.split(".")
    section = data
    for key in way:
        section = section.setdefault(key, {})
    section[last] = value
    if place in ("grid.like", "grid.boundary"):
        data["grid"] = {last: value}
    path = folder / "abc.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), "utf-8")
    return path


PATH_SETTINGS = [
    "grid.like", "grid.boundary", "imagery.stac.items", "imagery.files.root", "evaluation.truth",
    "census.levels.coarse.boundaries.file", "census.levels.coarse.counts.file",
    "census.levels.coarse.counts.member",
]  # fmt: skip


@pytest.fixture
def countries(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "countries"
    folder.mkdir()
    monkeypatch.setenv("POPCORN_COUNTRIES", str(folder))
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return folder


@pytest.mark.parametrize("place", PATH_SETTINGS)
@pytest.mark.parametrize("text", ["../x", "a\0b", "/vsicurl/http://h/a", "{year.real}", "x" * 300])
def test_no_setting_takes_it(countries, place, text):
    _country(countries, place, text)
    with pytest.raises(ConfigError, match="expected the path"):
        load_country("abc")


@pytest.mark.parametrize("text", ["../..", "a/b", "/etc", "..", "x\0"])
def test_no_region_is_a_path(countries, text):
    _country(countries, "imagery.files.region", text)
    with pytest.raises(ConfigError, match="expected a name"):
        load_country("abc")


@pytest.mark.parametrize("name", ["../evil", "a/b", "a.b", "", "é", "x" * 61, "a b", "a\n"])
def test_no_level_is_a_path(name):
    counts = {"file": "a.csv", "columns": {"id": "id", "people": "p"}}
    level = {"role": "train", "boundaries": {"file": "u.gpkg"}, "counts": counts}
    with pytest.raises(ValidationError, match="letters, digits"):
        CensusSettings.model_validate({"levels": {name: level}})


@pytest.mark.parametrize(
    "name", ["../x", "A", "a b", "a.b", "x" * 40, "é", "", "a\n", "1a", "-a", ".a"]
)
def test_no_country_code_is_a_path(countries, name):
    with pytest.raises(ConfigError, match="there is no country"):
        load_country(name)


@pytest.mark.parametrize(
    "asset", ["../x", "a/b", "a\n", "A", ".a", "", "a\0", "ａ", "a" + "x" * 999]
)
@pytest.mark.parametrize("part", ["asset", "country"])
def test_no_address_in_the_store_is_a_path(asset, part, tmp_path):
    with pytest.raises((StoreError, OSError)):
        if part == "asset":
            address = Address(asset)
        else:
            address = Address("map", asset, 2020)
        with Store(tmp_path).draft(address):
            pass
    assert not [p for p in tmp_path.rglob("*") if p.name != "map"]


def test_aliases_without_end_are_refused(countries):
    path = countries / "abc.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        load_country("abc")
    path.write_text("name: &a [*a]\n")
    with pytest.raises(ConfigError):
        load_country("abc")
    path.write_text("name: " + "[" * 20_000)
    with pytest.raises(ConfigError):
        load_country("abc")
    path.write_text("name: " + "x" * MAX_BYTES)
    with pytest.raises(ConfigError, match="more than"):
        load_country("abc")
    path.write_text("name: !!python/object/apply:os.system [touch /tmp/ran]\n")
    with pytest.raises(ConfigError):
        load_country("abc")


# Where paths lead ---------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The store's root, with a secret beside it."""
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_text("id,people\n1,2\n")
    monkeypatch.setenv("POPCORN_DATA", str(root))
    monkeypatch.delenv("POPCORN_FOLDERS", raising=False)
    return root


def test_the_store_alone_is_read_unless_a_folder_was_opened(data, monkeypatch):
    outside = data.parent / "outside" / "secret.csv"
    assert given_path("census/a.csv") == data / "census/a.csv"
    assert given_path(data / "a.csv") == data / "a.csv"  # absolute, and in the store
    for path in (outside, "/etc/passwd", "/etc"):
        with pytest.raises(ConfigError, match="POPCORN_FOLDERS"):
            given_path(path)
    monkeypatch.setenv("POPCORN_FOLDERS", str(outside.parent))
    assert given_path(outside) == outside
    with pytest.raises(ConfigError, match="leads out"):
        given_path(outside.parent.with_name("outside2") / "a")  # no prefix of a name
    monkeypatch.setenv("POPCORN_FOLDERS", "relative")
    with pytest.raises(ConfigError, match="not absolute"):
        given_path("a.csv")


def test_links_out_of_the_store_are_not_followed(data):
    outside = data.parent / "outside"
    (data / "file.csv").symlink_to(outside / "secret.csv")
    (data / "folder").symlink_to(outside)
    (data / "loop").symlink_to(data / "loop")
    (data / "truth_2020").symlink_to(outside)
    for path in ("file.csv", "folder/secret.csv", "folder", "truth_{year}/secret.csv"):
        with pytest.raises(ConfigError, match="leads out"):
            given_path(path)
    (data / "inside").symlink_to(data / "census")
    assert given_path("inside/a.csv") == data / "inside/a.csv"
    assert given_path("loop/x")  # is missing, and says so when it is opened


def test_a_linked_census_file_is_not_read(data):
    (data / "counts.csv").symlink_to(data.parent / "outside" / "secret.csv")
    settings = CountSettings(file="counts.csv")
    with Files([data]) as files:
        assert files.has(settings)
        with pytest.raises(ConfigError, match="leads out"):
            files.open(settings, (".csv",))
    with pytest.raises(ConfigError, match="leads out"), Files([data]) as files:
        files.sources(settings)


def test_linked_imagery_is_not_read(countries, tmp_path):
    data = tmp_path / "data"
    _country(countries, "imagery.stac.items", "items.json")
    (tmp_path / "outside.json").write_text('{"features": []}')
    (data / "items.json").symlink_to(tmp_path / "outside.json")
    from popcorn_assets.resources import ImageryResource

    with pytest.raises(ConfigError, match="leads out"):
        ImageryResource().settings_of(load_country("abc"))


def test_a_raster_of_the_published_layout_is_no_link_out(tmp_path):
    root, name = tmp_path / "data", "S2Aspring"
    folder = root / "merged" / "EE" / "abc" / name
    folder.mkdir(parents=True)
    _write_raster(tmp_path / "outside.tif")
    (folder / f"abc_{name}.tif").symlink_to(tmp_path / "outside.tif")
    settings = ImagerySettings.parse(
        {"source": "files", "files": {"root": str(root), "region": "abc"}}
    )
    with pytest.raises(ConfigError, match="leads out"):
        open_source(settings).scenes(SeasonRequest("s2", 2020, "spring", GRID))


# Scenes -------------------------------------------------------------------------------------------


def _write_raster(path: Path, driver: str = "GTiff", value: int = 1) -> None:
    with rasterio.open(
        path, "w", driver=driver, width=20, height=20, count=1, dtype="uint16",
        crs=GRID.crs, transform=rasterio.Affine(*GRID.transform[:6]),
    ) as out:  # fmt: skip
        out.write(np.full((1, 20, 20), value, np.uint16))


def _items(folder: Path, href: object) -> ImagerySettings:
    item = {
        "id": "S2A_MSIL2A_20200401T080000_N0500_R000_T36MXX_20200401T100000",
        "collection": "sentinel-2-l2a",
        "bbox": None,
        "properties": {"datetime": "2020-04-01T08:00:00Z", "s2:processing_baseline": "05.00"},
        "assets": {b: {"href": href} for b in ("B02", "B03", "B04", "B08", "SCL")},
    }
    folder.mkdir(exist_ok=True)
    (folder / "items.json").write_text(json.dumps({"features": [item]}))
    return ImagerySettings.parse(
        {"source": "stac", "stac": {"profile": "local", "items": str(folder / "items.json")}}
    )


@pytest.mark.parametrize(
    "href",
    ["../outside.tif", "a/../../outside.tif", "/etc/passwd", "link.tif", "linked/outside.tif",
     "/vsicurl/http://h/a.tif", "file:///etc/passwd", "/vsimem/x", "a\0b"],
    ids=ascii,
)  # fmt: skip
def test_an_item_collection_names_only_what_lies_below_it(tmp_path, href, monkeypatch):
    monkeypatch.delenv("POPCORN_FOLDERS", raising=False)
    folder = tmp_path / "scenes"
    settings = _items(folder, href)
    _write_raster(tmp_path / "outside.tif")
    (folder / "link.tif").symlink_to(tmp_path / "outside.tif")
    (folder / "linked").symlink_to(tmp_path)
    if href.startswith("file:"):  # a strange name of a file below the folder, that is not there
        scenes = open_source(settings).scenes(SeasonRequest("s2", 2020, "spring", GRID))
        asked = {Path(a) for s in scenes.scenes for a in s.assets.values()}
        assert all(path.is_relative_to(folder.resolve()) for path in asked)
        return
    with pytest.raises(ConfigError):
        open_source(settings).scenes(SeasonRequest("s2", 2020, "spring", GRID))


@pytest.mark.parametrize(
    "href", ["/etc/passwd", "a.tif", "file:///etc/passwd", "/vsicurl/http://h/a", "s3://b/a", ""]
)
@pytest.mark.parametrize("profile", ["planetary-computer", "earth-search"])
def test_a_catalogue_names_no_local_file(href, profile):
    keys = PROFILES[profile].assets["s2"].values()
    item = {
        "id": "S2A_x",
        "properties": {"datetime": "2020-04-01T08:00:00Z", "s2:processing_baseline": "05.00"},
        "assets": {key: {"href": href} for key in keys},
    }
    found = scene_from_item(item, "s2", PROFILES[profile])
    assert isinstance(found, Lost)
    assert ("local files" if href else "none of the assets") in found.reason


@pytest.mark.parametrize("href", [None, 7, ["x"], {"href": "x"}])
def test_a_link_that_is_no_text_is_no_link(href):
    item = {
        "id": "S2A_x",
        "properties": {"datetime": "2020-04-01T08:00:00Z"},
        "assets": {"B02": {"href": href}, "B03": "x", "B04": None},
    }
    assert isinstance(scene_from_item(item, "s2", PROFILES["planetary-computer"]), Lost)


VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32736</SRS>
<GeoTransform>312300, 10, 0, 9755700, 0, -10</GeoTransform>
<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.fixture
def virtual(tmp_path) -> Path:
    """A virtual raster under a plain name, showing a file elsewhere."""
    _write_raster(tmp_path / "secret.tif", value=77)
    path = tmp_path / "shown.tif"
    path.write_text(VRT.format(path=tmp_path / "secret.tif"))
    with rasterio.open(path) as dataset:  # what GDAL would do, left to itself
        assert dataset.read(1).max() == 77
    return path


def test_a_virtual_raster_is_not_followed(virtual, tmp_path):
    for use in (raster.grid_of, raster.read, raster.read_float):
        with pytest.raises(PopcornError, match="cannot be opened"):
            use(virtual)
    reader = AssetReader(TileCoordinates(GRID))
    with pytest.raises(AssetLost):
        reader.read(str(virtual), 0, Traffic())
    assert reader.read(str(tmp_path / "secret.tif"), 0, Traffic()) is not None


def test_a_virtual_raster_behind_a_link_is_not_followed(virtual):
    """A catalogue's server may answer with anything."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from popcorn_ml.imagery.remote import Fetcher

    body = virtual.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fetcher = Fetcher(lambda href, refused: href, retries=0)
    try:
        with pytest.raises(AssetLost):
            AssetReader(TileCoordinates(GRID), fetcher).read(
                f"http://127.0.0.1:{server.server_port}/a.tif", 0, Traffic()
            )
    finally:
        fetcher.close()
        server.shutdown()
        server.server_close()


def test_a_virtual_boundary_is_not_followed(tmp_path):
    path = tmp_path / "country.gpkg"
    path.write_text(
        "<OGRVRTDataSource><OGRVRTLayer name='l'><SrcDataSource>/etc/passwd</SrcDataSource>"
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(ConfigError, match="cannot be read") as failure:
        outline(path, "EPSG:4326")
    assert "it begins with" in str(failure.value)


@pytest.mark.parametrize(
    "blob", ["p/..", "p/", "p/.x", "p/a\0b", "p/" + "x" * 300, "p/a\\b"], ids=ascii
)
def test_no_file_of_a_bucket_is_a_path(blob):
    with pytest.raises(ImageryError, match="name that cannot be used"):
        _own_name(blob)
    assert _own_name("p/q/part-0-1.tif") == "part-0-1.tif"


# The store's own files ----------------------------------------------------------------------------

HERE = Address("population_map", "demo", 2020)


@pytest.fixture
def version(tmp_path):
    store = Store(tmp_path / "data")
    with store.draft(HERE) as draft:
        (draft / "map.txt").write_text("1")
        found = store.publish(HERE, draft, {})
    (tmp_path / "secret.txt").write_text("secret")
    shutil.copytree(found.path, tmp_path / found.version)  # a whole version, and not in the store
    return store, found


@pytest.mark.parametrize(
    "name",
    ["../LATEST", "../../../../secret.txt", "/etc/passwd", "a\0b", "x" * 5000, "..", ".", "",
     "out.txt", "map.txt/", "nothing"],
    ids=lambda n: ascii(n)[:20],
)  # fmt: skip
def test_no_file_of_a_version_lies_outside_it(version, name, tmp_path):
    _, found = version
    (found.path / "out.txt").symlink_to(tmp_path / "secret.txt")
    if name == "map.txt/":
        return
    with pytest.raises(StoreError, match="has no file"):
        found.file(name)


@pytest.mark.parametrize(
    "text",
    [
        "../../../{v}",
        "{v}/../{v}",
        "/{v}",
        "{v}\0",
        "{V}",
        "0" * 16,
        "x" * 10_000,
        "",
        "{v} {v}",
        ".",
    ],
)
def test_latest_leads_nowhere_else(version, text, tmp_path):
    store, found = version
    named = text.replace("{v}", found.version).replace("{V}", found.version.upper() + "A")
    (store.folder(HERE) / LATEST).write_text(named)
    with pytest.raises(StoreError, match="names a version that is not there"):
        store.latest(HERE)
    with pytest.raises(StoreError, match="is not in the store"):
        store.version(HERE, named)


def test_latest_that_is_no_text(version):
    store, _ = version
    (store.folder(HERE) / LATEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="names a version that is not there"):
        store.latest(HERE)


def test_a_version_that_is_a_link_is_none(version, tmp_path):
    store, found = version
    shutil.rmtree(found.path)
    found.path.symlink_to(tmp_path / found.version)
    with pytest.raises(StoreError, match="names a version that is not there"):
        store.latest(HERE)


def test_a_linked_file_is_not_the_versions(version, tmp_path):
    store, found = version
    copy = tmp_path / "copy.txt"
    copy.write_text("1")  # the very same contents
    (found.path / "map.txt").unlink()
    (found.path / "map.txt").symlink_to(copy)
    assert digests(found.path) == {}
    with pytest.raises(StoreError, match="has no file"):
        found.file("map.txt")
    with store.draft(HERE) as draft:
        (draft / "map.txt").symlink_to(copy)
        (draft / "other.txt").write_text("x")
        with pytest.raises(StoreError, match="link"):
            store.publish(HERE, draft, {})


@pytest.mark.parametrize("change", [("asset", "../x"), ("country", "../.."), ("year", 12),
                                    ("version", "../../x"), ("asset", None)])  # fmt: skip
def test_a_manifest_leads_nowhere_else(version, change):
    """What walks manifests makes addresses and versions of what they say."""
    store, found = version
    entry = {"asset": HERE.asset, "country": "demo", "year": 2020, "version": found.version}
    entry[change[0]] = change[1]
    with pytest.raises((StoreError, TypeError)):
        store.version(Address(entry["asset"], entry["country"], entry["year"]), entry["version"])
    assert (found.path / MANIFEST).is_file()


# Archives -----------------------------------------------------------------------------------------


def _zip(path: Path, members: dict[str, bytes], **info) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # as it is, without the library's own cleaning
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(entry, key, value)
            out.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../x.csv", "a/../../x.csv", "/x.csv", "C:/x.csv", "..\\x.csv", "a\\..\\..\\x.csv", "\\\\h\\x",
     "x" * 300 + ".csv", "/".join(["abcdefghi"] * 150)],
    ids=lambda n: n[:20],
)  # fmt: skip
def test_no_member_leaves_its_folder(tmp_path, name):
    path = _zip(tmp_path / "a.zip", {name: b"x"})
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(CensusError):
        archive.unpack(path, target)
    assert not list(tmp_path.rglob("*.csv"))
    assert list(target.iterdir()) == []


def test_a_member_that_is_a_link_is_refused(tmp_path):
    path = _zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, external_attr=0o120777 << 16)
    with pytest.raises(CensusError, match="link"):
        archive.unpack(path, tmp_path / "out")


def test_bombs_are_not_unpacked(tmp_path):
    limits = archive.Limits(total_bytes=10_000, members=5, ratio=50.0, ratio_from_bytes=5000)
    big = _zip(tmp_path / "big.zip", {"a": os.urandom(6000), "b": os.urandom(6000)})
    many = _zip(tmp_path / "many.zip", {str(i): b"" for i in range(6)})
    dense = _zip(tmp_path / "dense.zip", {"a": b"\0" * 9000})
    for path, said in ((big, "far more"), (many, "too many"), (dense, "far more")):
        with pytest.raises(CensusError, match=said):
            archive.unpack(path, tmp_path / "out", limits)
    assert not (tmp_path / "out").exists()


def test_an_archive_inside_is_left_packed(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("bomb", b"\0" * 5_000_000)
    path = _zip(tmp_path / "a.zip", {"inner.zip": inner.getvalue()})
    (tmp_path / "out").mkdir()
    assert [p.name for p in archive.unpack(path, tmp_path / "out")] == ["inner.zip"]
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir()) < 50_000


def test_within_gives_back_what_it_was_given(tmp_path):
    assert within(tmp_path / "a" / "b", [tmp_path]) == tmp_path / "a" / "b"
    with pytest.raises(ConfigError, match="no path"):
        within("a\0b", [tmp_path])


def test_a_raster_that_claims_to_be_endless_is_refused(tmp_path):
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=raster.MAX_SIDE_PX + 1, height=4, count=1, dtype="int32",
        crs=GRID.crs, transform=rasterio.Affine(*GRID.transform[:6]), tiled=True, SPARSE_OK=True,
        compress="deflate",
    ):  # fmt: skip
        pass
    assert path.stat().st_size < 2_000_000
    with pytest.raises(PopcornError, match="larger than any country"):
        raster.grid_of(path)
