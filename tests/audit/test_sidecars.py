"""What viewers leave beside a map is named; what changes how it is read is not taken for that."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from popcorn_assets.audit.sidecars import of_a_viewer

STATISTICS = """<PAMDataset>
  <PAMRasterBand band="1">
    <Histograms><HistItem><HistMin>0</HistMin><HistMax>9</HistMax><BucketCount>2</BucketCount>
      <IncludeOutOfRange>0</IncludeOutOfRange><Approximate>1</Approximate>
      <HistCounts>1|2</HistCounts></HistItem></Histograms>
    <Metadata><MDI key="STATISTICS_MAXIMUM">9</MDI></Metadata>
  </PAMRasterBand>
</PAMDataset>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "population.tif").write_bytes(b"a raster")
    (tmp_path / "units.gpkg").write_bytes(b"units")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("population.tif.aux.xml", STATISTICS),
        ("population.tif.ovr", "pyramids"),
        ("population.qml", "<qgis/>"),
        ("units.gpkg-shm", "x"),
        ("units.gpkg-wal", ""),
        (".DS_Store", "x"),
        ("._population.tif", "x"),
    ],
)
def test_what_a_viewer_worked_out_is_named(folder, name, content):
    (folder / name).write_text(content)
    assert "no part of the version" in of_a_viewer(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("population.tif.aux.xml", "<PAMDataset><GeoTransform>1, 2, 3</GeoTransform></PAMDataset>"),
        ("population.tif.aux.xml", "<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>"),
        (
            "population.tif.aux.xml",
            '<PAMDataset><PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand>'
            "</PAMDataset>",
        ),
        (
            "population.tif.aux.xml",
            '<PAMDataset><PAMRasterBand band="1"><Scale>2</Scale></PAMRasterBand></PAMDataset>',
        ),
        (
            "population.tif.aux.xml",
            '<PAMDataset><Metadata><MDI key="people">12</MDI></Metadata></PAMDataset>',
        ),
        (
            "population.tif.aux.xml",
            '<PAMDataset><Metadata domain="IMAGE_STRUCTURE"><MDI key="STATISTICS_MEAN">1</MDI>'
            "</Metadata></PAMDataset>",
        ),
        ("population.tif.aux.xml", "no XML"),
        ("other.tif.aux.xml", STATISTICS),
        ("population.tif.msk", "a mask"),
        ("population.tfw", "1"),
        ("units.gpkg-wal", "rows"),
        ("population.tif", "x"),
        ("notes.txt", "x"),
        ("README", "x"),
    ],
)
def test_what_changes_what_is_read_is_not(folder, name, content):
    (folder / name).write_text(content)
    assert of_a_viewer(folder / name) == ""


def test_what_gdal_itself_writes_is_known(tmp_path):
    path = tmp_path / "map.tif"
    _raster(path)
    with rasterio.open(path) as dataset:
        dataset.statistics(1, approx=False, clear_cache=True)
    assert of_a_viewer(path.with_name("map.tif.aux.xml")).startswith("statistics")


def _raster(path) -> None:
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    about = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "float32"}
    place = rasterio.transform.from_origin(0, 100, 10, 10)
    with rasterio.open(path, "w", crs="EPSG:32736", transform=place, **about) as dataset:
        dataset.write(values, 1)
        dataset.set_band_description(1, "people")  # which GDAL repeats beside its statistics
