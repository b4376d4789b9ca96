"""What was rightly replaced or added to is told apart from what was tampered with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import rasterio
from click.testing import CliRunner

from popcorn_assets.audit.findings import Finding, Verdict, verdict_of
from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.store.versions import MANIFEST, Address, Store, Version, sha256
from popcorn_ml.census.inbox import _store
from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.warehouse import Warehouse

COUNTS = Address("census_counts", "demo", 2021)
NAME = "demo/census/counts_coarse_2021.csv"
TAKEN_IN = f"census/demo/{NAME}"


@pytest.fixture
def store(in_copy) -> Store:
    return Store(in_copy.data)


def told(store: Store, year: int = 2021) -> dict[tuple[Address, str], Finding]:
    """What an audit says of files from outside, by asset's partition and file."""
    report = audit(store, "demo", year, repository=None)
    return {
        (node.address, finding.about.removesuffix(" (from outside)")): finding
        for node, finding in report.findings()
        if node is not None and finding.verdict is not Verdict.FOREIGN_CODE
    }


def published(store: Store, version: Version, manifest: dict, more: str = "") -> Version:
    """A version published again with another manifest; with other contents if there are more."""

    def record(whole, digest):
        Warehouse(store.warehouse).record_publication(whole, digest, {})

    with store.draft(version.address) as draft:
        for name in version.manifest()["files"]:
            shutil.copyfile(version.file(name), draft / name)
        if more:
            (draft / more).write_text("{}")
        return store.publish(version.address, draft, manifest, record)


def with_source(store: Store, manifest: dict) -> dict:
    """The same, made from the census file that lies in the place of accepted ones now."""
    file = store.root / TAKEN_IN
    new = {"path": TAKEN_IN, "size": file.stat().st_size, "sha256": sha256(file)}
    kept = [one for one in manifest["sources"] if one["path"] not in (NAME, TAKEN_IN)]
    return {**manifest, "sources": [*kept, new]}


def test_a_superseded_census_file_is_found_where_the_inbox_keeps_it(store, tmp_path):
    accepted, upload = store.root / "census" / "demo", tmp_path / "upload.csv"
    first = (store.root / NAME).read_bytes()
    upload.write_bytes(first)
    place = _store(upload, accepted, NAME)
    counts = store.latest(COUNTS)
    counts = published(store, counts, with_source(store, counts.manifest()))
    assert told(store) == {}

    upload.write_bytes(first + b"\n")
    _store(upload, accepted, NAME)
    finding = told(store)[COUNTS, TAKEN_IN]
    assert finding.verdict is Verdict.OLDER
    assert f".history/{sha256(store.root / NAME)[:16]}/{NAME}" in finding.message
    assert audit(store, "demo", 2021, repository=None).passed()
    assert reproduce(store, COUNTS).identical, "made again from the file that was superseded"

    published(store, counts, with_source(store, counts.manifest()), more="notes.json")
    finding = told(store)[COUNTS, TAKEN_IN]
    assert finding.verdict is Verdict.OK, "maps are still traced to what they were made from"
    assert "superseded" in finding.message
    report = audit(store, "demo", 2021, repository=None)
    assert report.passed()

    (kept,) = accepted.glob(f".history/*/{NAME}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    assert told(store)[COUNTS, TAKEN_IN].verdict is Verdict.CHANGED
    kept.unlink()
    assert told(store)[COUNTS, TAKEN_IN].verdict is Verdict.CHANGED
    kept.write_bytes(whole)
    current = place.read_bytes()
    place.write_bytes(current + b"\n")
    assert not audit(store, "demo", 2021, repository=None).passed(), "the current one's own file"
    place.write_bytes(current)


def test_remarks_make_no_verdict():
    remark = Finding(Verdict.OK, "a file", "superseded")
    assert verdict_of([remark]) is Verdict.OK
    assert verdict_of([remark, Finding(Verdict.OLDER, "an input", "")]) is Verdict.OLDER


def test_a_catalogue_may_grow_and_what_was_used_may_not_change(store):
    path = store.root / "demo" / "items.json"
    kept = path.read_bytes()
    catalogue = json.loads(kept)
    season = Address("s2_summer", "demo", 2021)
    used = store.latest(season).manifest()["facts"]["scenes"][0]["id"]
    about = (season, "demo/items.json")

    def verdicts(features: list[dict]) -> set[Verdict]:
        path.write_text(json.dumps({**catalogue, "features": features}))
        found = told(store)
        assert about in found
        return {finding.verdict for (_, file), finding in found.items() if file == about[1]}

    items = catalogue["features"]
    later = {**items[0], "id": "S2B_of_another_year"}
    later["properties"] = {**later["properties"], "datetime": "2024-05-01T08:00:00Z"}
    try:
        assert verdicts([later, *items]) == {Verdict.OLDER}
        assert audit(store, "demo", 2021, repository=None).passed()
        assert verdicts([item for item in items if item["id"] != used]) >= {Verdict.CHANGED}
        (item,) = [item for item in items if item["id"] == used]
        item["properties"]["eo:cloud_cover"] = 99.0
        assert verdicts(items) >= {Verdict.CHANGED}
        assert told(store)[about].verdict is Verdict.CHANGED
        path.write_bytes(kept[:-2])
        assert told(store)[about].verdict is Verdict.CHANGED, "no catalogue any more"
        with pytest.raises(StoreError, match="no longer the same"):
            reproduce(store, season)
    finally:
        path.write_bytes(kept)
    assert about not in told(store)


def test_a_year_of_which_one_season_was_made_is_whole(store, tmp_path):
    """The extractor is known to the store, and nothing of this year was made with it yet."""
    part = Store(tmp_path / "part")
    shutil.copytree(store.root / "demo", part.root / "demo")
    warehouse = Warehouse(part.warehouse)
    for address in (Address("s1_spring", "demo", 2021), Address("builtup_extractor")):
        shutil.copytree(store.folder(address), part.folder(address))
        version = part.latest(address)
        warehouse.record_publication(version.manifest(), sha256(version.path / MANIFEST), {})
    assert told(part) == {}
    assert audit(part, "demo", 2021, repository=None).passed()
    shutil.rmtree(part.folder(Address("builtup_extractor")))
    (finding,) = audit(part, "demo", 2021, repository=None).general
    assert finding.verdict is Verdict.UNRECORDED
    assert "builtup_extractor belong to no version" in finding.message


def test_opening_a_map_in_a_viewer_is_no_tampering(in_copy):
    version = Store(in_copy.data).latest(Address("hectare_map", "demo", 2021))
    path = version.file("population.tif")
    sidecar = path.with_name("population.tif.aux.xml")
    with rasterio.open(path) as dataset:
        dataset.statistics(1, approx=False, clear_cache=True)
    assert sidecar.is_file(), "as gdalinfo -stats and QGIS write it, for who may write everywhere"
    style = path.with_name("population.qml")
    style.write_text("<qgis/>")
    try:
        done = CliRunner().invoke(cli, AUDIT)
        assert done.exit_code == 0, done.output
        assert "population.tif.aux.xml: statistics that a viewer worked out" in done.output
        text = sidecar.read_text().replace("<PAMRasterBand", "<SRS>EPSG:4326</SRS><PAMRasterBand")
        sidecar.write_text(text)
        done = CliRunner().invoke(cli, AUDIT)
        assert done.exit_code == 1, "that moves the map for whoever opens it"
        assert "unrecorded population.tif.aux.xml" in done.output
    finally:
        sidecar.unlink()
        style.unlink()


AUDIT = ["audit", "demo", "2021", "--asset", "hectare_map", "--without-dagster"]
HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_warehouse_that_another_program_holds_is_not_judged(in_copy, monkeypatch):
    monkeypatch.setattr(Warehouse.__init__, "__defaults__", (0.3,))
    path = Store(in_copy.data).warehouse
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "held"
        done = CliRunner().invoke(cli, AUDIT)
        holder.kill()
    assert done.exit_code == 2, done.output
    assert "not judged warehouse: it could not be read: another program holds" in done.output
    assert "changed" not in done.output
    assert CliRunner().invoke(cli, AUDIT).exit_code == 0
