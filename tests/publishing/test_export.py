"""`popcorn export`: what it copies, and what it refuses; nothing is ever half-written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pystac
import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.commands.export import export_year
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import ExportError, StoreError
from popcorn_ml.publishing import export as exporting
from popcorn_ml.publishing.catalogue import multihash
from tests.platforms import unlock


def shown(folder: Path) -> dict[str, bytes]:
    there = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in there}


def published(tiny, year: int) -> Path:
    return Store(tiny.data).latest(Address("publication", "demo", year)).path


def test_two_years_share_a_folder_and_its_catalogue(in_tiny, tmp_path: Path) -> None:
    for year in (2020, 2021, 2020):
        done = CliRunner().invoke(cli, ["export", "demo", str(year), "--to", str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        assert str(tmp_path / "out" / "catalog.json") in done.output
    names = set(shown(tmp_path / "out"))
    for year in (2020, 2021):
        assert {p.name for p in published(in_tiny, year).glob(f"demo_{year}_*")} <= names
    assert "manifest.json" not in names
    catalogue = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    items = {item.id for item in catalogue.get_items(recursive=True)}
    assert items == {"demo_2020", "demo_2020_model", "demo_2021", "demo_2021_model"}
    for item in catalogue.get_items(recursive=True):
        for asset in item.assets.values():
            file = tmp_path / "out" / Path(asset.href).name
            assert asset.extra_fields["file:checksum"] == multihash(file)
            assert os.access(file, os.W_OK)  # the copy is its owner's


def test_a_folder_that_is_somebody_elses_is_left_alone(in_tiny, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.txt").write_text("words")
    with pytest.raises(ExportError, match="no former export"):
        export_year(Store(in_tiny.data), "demo", 2020, target)
    assert [path.name for path in target.iterdir()] == ["chapter.txt"]
    with pytest.raises(ExportError, match="no folder"):
        export_year(Store(in_tiny.data), "demo", 2020, target / "chapter.txt")


def test_a_note_that_is_no_note_is_told(in_tiny, tmp_path: Path) -> None:
    (tmp_path / exporting.NOTE).write_text("[]")
    with pytest.raises(ExportError, match="note of earlier exports"):
        export_year(Store(in_tiny.data), "demo", 2020, tmp_path)
    assert not shown(tmp_path)


def test_a_year_without_maps_is_told_with_those_that_have(in_tiny, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", "demo", "2019", "--to", str(tmp_path / "out")])
    assert isinstance(done.exception, StoreError)
    assert "maps of 2020, 2021" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone"])
def test_a_file_altered_since_stops_the_export(tiny, tmp_path: Path, harm: str) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "data", symlinks=True)
    unlock(data)
    store = Store(data)
    export_year(store, "demo", 2020, tmp_path / "out")
    before = shown(tmp_path / "out")
    file = store.latest(Address("publication", "demo", 2020)).file("demo_2020_units.csv")
    content = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if harm == "shorter" else content[:-1] + b"9")
    for target in ("out", "new"):
        with pytest.raises((ExportError, StoreError), match=r"not as it was published|no file"):
            export_year(store, "demo", 2020, tmp_path / target)
    assert shown(tmp_path / "out") == before
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "out").glob(f"{exporting._STAGING}*"))


def test_a_former_export_is_updated_and_what_else_is_there_stays(in_tiny, tmp_path) -> None:
    store, target = Store(in_tiny.data), tmp_path / "out"
    export_year(store, "demo", 2020, target)
    note = json.loads((target / exporting.NOTE).read_text())
    note["country_years"]["demo_2020"]["files"]["demo_2020_old.tif"] = "0" * 64
    (target / exporting.NOTE).write_text(json.dumps(note))
    (target / "demo_2020_old.tif").write_text("of a former version")
    (target / "demo_2020_population_100m.tif").write_text("spoilt")
    (target / "demo_2020_population_100m.tif.aux.xml").write_text("by QGIS")
    done = export_year(store, "demo", 2020, target)
    assert done.removed == ("demo_2020_old.tif",)
    names = shown(target)
    assert "demo_2020_population_100m.tif.aux.xml" in names
    assert (
        names["demo_2020_population_100m.tif"]
        == (published(in_tiny, 2020) / "demo_2020_population_100m.tif").read_bytes()
    )


def test_an_interrupted_export_is_finished_by_the_next(in_tiny, tmp_path, monkeypatch) -> None:
    store, target = Store(in_tiny.data), tmp_path / "out"
    calls = []

    def cut(source, to):
        calls.append(to)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(source, to)

    real = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(exporting.os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            export_year(store, "demo", 2020, target)
    note = json.loads((target / exporting.NOTE).read_text())
    assert not note["country_years"]["demo_2020"]["whole"]
    names = shown(target)
    assert len(names) == 4  # one more move was the note's own
    for name, content in names.items():  # what has its name is whole
        assert content == (published(in_tiny, 2020) / name).read_bytes()
    export_year(store, "demo", 2020, target)
    note = json.loads((target / exporting.NOTE).read_text())
    assert note["country_years"]["demo_2020"]["whole"]
