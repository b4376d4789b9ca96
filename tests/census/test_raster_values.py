"""What a raster says of its own values holds for people and for unit numbers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from popcorn_ml import raster
from popcorn_ml.census.files import Files, companions
from popcorn_ml.census.settings import CensusSettings, FileSettings
from popcorn_ml.errors import CensusError

from . import place
from .place import GRID, build, settings

CELLS = (3, 4)
PEOPLE = np.arange(100, 220, 10).reshape(CELLS)
WIDE = Affine(400, 0, GRID.west, 0, -400, GRID.north)


def write(
    path: Path, bands: list[np.ndarray], *, inside: bool = True, transform=WIDE, **changes: Any
) -> Path:
    """Write a raster; `changes` are `scale`, `offset`, `mask`, `alpha` and options of the file."""
    scale, offset = changes.pop("scale", 1.0), changes.pop("offset", 0.0)
    mask, alpha = changes.pop("mask", None), changes.pop("alpha", False)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(
            path, "w", driver="GTiff", crs=GRID.crs, transform=transform, count=len(bands),
            height=bands[0].shape[0], width=bands[0].shape[1], dtype=bands[0].dtype, **changes,
        ) as out,
    ):  # fmt: skip
        for k, band in enumerate(bands, start=1):
            out.write(band, k)
        if alpha:
            out.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        if scale != 1 or offset != 0:
            out.scales, out.offsets = [scale] * len(bands), [offset] * len(bands)
        if mask is not None:
            out.write_mask(mask)
    return path


STORED = PEOPLE.astype("int32")
SEEN = np.ones(CELLS, bool)
SEEN[1, 2] = False
JUNK = np.where(SEEN, STORED, 9999).astype("int32")
SIGHT = np.where(SEEN, 255, 0).astype("uint8")


@pytest.mark.parametrize(
    ("bands", "how", "masked"),
    [
        ([STORED * 10], {"scale": 0.1}, False),
        ([STORED - 40], {"offset": 40.0}, False),
        ([(STORED // 2 - 5)], {"scale": 2.0, "offset": 10.0}, False),
        ([JUNK], {"mask": SIGHT}, True),
        ([JUNK], {"mask": SIGHT, "inside": False}, True),
        ([JUNK * 10], {"mask": SIGHT, "scale": 0.1, "nodata": -1}, True),
        ([JUNK], {"nodata": 9999}, True),
        ([JUNK, SIGHT.astype("int32")], {"alpha": True}, True),
    ],
    ids=["scale", "offset", "both", "mask inside", "mask beside", "mask, scale and nodata",
         "nodata", "alpha"],
)  # fmt: skip
def test_people_of_a_gridded_census(
    bands: list[np.ndarray], how: dict[str, Any], masked: bool, tmp_path: Path
) -> None:
    write(tmp_path / "people.tif", bands, **how)
    section = settings(reader="gridded", counts={"file": "people.tif", "year": 2020})
    built = build(tmp_path, section)
    wanted = PEOPLE[SEEN] if masked else PEOPLE.ravel()
    assert [e["people"] for e in built.entries()] == pytest.approx(list(wanted))
    files = {s.file for s in built.counts.sources}
    beside = {"people.tif.msk"} if how.get("inside") is False else set()
    assert files == {"people.tif"} | beside, "a mask beside the file is a source too"


@pytest.mark.parametrize("how", [{}, {"scale": 2.0}, {"offset": 3.0}, {"mask": True}])
def test_numbers_of_units(how: dict[str, Any], tmp_path: Path) -> None:
    numbers = np.repeat(np.repeat(np.arange(1, 13).reshape(CELLS), 40, 0), 40, 1) * 2 + 3
    seen = np.ones(numbers.shape, bool)
    stored = numbers
    if how.get("mask"):
        seen[:5] = False
        stored = np.where(seen, numbers, 77)
        how = {"mask": np.where(seen, 255, 0).astype("uint8")}
    stored = (stored - how.get("offset", 0)) / how.get("scale", 1)
    fine = Affine(*GRID.transform)
    kind = "float32" if how.get("scale") else "int32"
    write(tmp_path / "boundaries.tif", [stored.astype(kind)], transform=fine, **how)
    lines = ["idx,POP20", *(f"{n},{n * 10}" for n in range(5, 28, 2))]
    (tmp_path / "counts.csv").write_text("\n".join(lines) + "\n", "utf-8")
    section = settings(
        reader="published", boundaries={"file": "boundaries.tif"}, counts={"file": "counts.csv"}
    )
    built = build(tmp_path, section)
    burnt = raster.read(built.units.rasters["district"], bands=1)
    np.testing.assert_array_equal(burnt, np.where(seen, (numbers - 3) // 2, 0))
    assert {e["id"]: e["people"] for e in built.entries()} == {
        str(n): n * 10 for n in range(5, 28, 2)
    }


@pytest.mark.parametrize("reader", ["gridded", "published"])
def test_the_first_of_several_bands_is_not_taken(reader: str, tmp_path: Path) -> None:
    write(tmp_path / "many.tif", [STORED, STORED + 1])
    (tmp_path / "counts.csv").write_text("idx,POP20\n100,5\n", "utf-8")
    given = {"file": "many.tif", "year": 2020}
    section = (
        settings(reader=reader, counts=given)
        if reader == "gridded"
        else settings(reader=reader, boundaries={"file": "many.tif"}, counts={"file": "counts.csv"})
    )
    with pytest.raises(CensusError, match="several bands"):
        build(tmp_path, section)


def test_statistics_that_a_viewer_writes_are_no_source(tmp_path: Path) -> None:
    path = write(tmp_path / "people.tif", [STORED])
    aux = tmp_path / "people.tif.aux.xml"
    aux.write_text("<PAMDataset><PAMRasterBand band='1'><Metadata/></PAMRasterBand></PAMDataset>")
    assert companions(path) == []
    aux.write_text(
        "<PAMDataset><PAMRasterBand band='1'><Scale>0.1</Scale></PAMRasterBand></PAMDataset>"
    )
    assert companions(path) == [aux]


def test_all_missing_files_are_named_where_they_belong(tmp_path: Path) -> None:
    from popcorn_ml.census.files import files_of

    census = CensusSettings.model_validate(settings())
    own, root = tmp_path / "census" / "tst", tmp_path
    with pytest.raises(CensusError, match="census files are missing") as raised:
        files_of(census, [own, root])
    for name in ("units.gpkg", "counts.csv"):
        assert str(own / name) in str(raised.value)
    place.write_place(root)
    (root / "counts.csv").unlink()
    with pytest.raises(CensusError, match="a census file is missing") as raised:
        files_of(census, [own, root])
    assert raised.value.where == own / "counts.csv"


def test_a_member_at_the_root_goes_before_one_of_its_name_below(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("old/pop.csv", "old")
        out.writestr("pop.csv", "new")
    with Files(tmp_path) as files:
        for member, text in (("pop.csv", "new"), ("old/pop.csv", "old")):
            found = files.open(FileSettings(file="a.zip", member=member), (".csv",))
            assert found.read_text() == text
