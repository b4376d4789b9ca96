"""Real Sentinel data through the assets: the published data set's layout, the published weights."""

from __future__ import annotations

import json

import dagster as dg
import numpy as np
import pytest
import rasterio
import yaml

from popcorn_assets.partitions import partition_key
from popcorn_assets.paths import published_weights
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.model.importing import import_extractor
from popcorn_ml.sentinel import SEASONS, SENSORS

SCORE_TOLERANCE = 1e-5
REGION = "esp"
CODE = "demo"
"""The country's code: one that the partitions know, its packaged file being overridden."""


@pytest.fixture
def spain(place, real_dir, monkeypatch):
    """The chip laid out as the published data set has a region, as four equal seasons."""
    root = place.data / "published"
    for season in SEASONS:
        for sensor, source, bands in (
            ("S1", "s1_grd_db.tif", [1, 2]),
            ("S2A", "s2_l1c.tif", [2, 3, 4, 8]),
        ):
            name = f"{sensor}{season}"
            target = root / "merged" / "EE" / REGION / name / f"{REGION}_{name}.tif"
            target.parent.mkdir(parents=True)
            with rasterio.open(real_dir / "spain" / source) as chip:
                profile = {**chip.profile, "count": len(bands), "driver": "GTiff"}
                with rasterio.open(target, "w", **profile) as out:
                    out.write(chip.read(bands))
                    for i, band in enumerate(bands, 1):
                        out.set_band_description(i, chip.descriptions[band - 1])
    _write_census(root / "processed" / REGION, real_dir / "spain" / "s1_grd_db.tif")
    country = {
        "name": "South-eastern Spain, one chip",
        "grid": {"like": f"published/merged/EE/{REGION}/S1spring/{REGION}_S1spring.tif"},
        "imagery": {"source": "files", "files": {"root": "published", "region": REGION}},
        "census": {
            "levels": {
                "coarse": {
                    "role": "train",
                    "reader": "published",
                    "boundaries": {"file": f"published/processed/{REGION}/boundaries_coarse.tif"},
                    "counts": {
                        "file": f"published/processed/{REGION}/census_coarse.csv",
                        "year": 2020,
                    },
                }
            }
        },
        "extractor": "published",
    }
    (place.home / "countries" / f"{CODE}.yaml").write_text(yaml.safe_dump(country))
    return place


def _write_census(folder, chip_path):
    """Sixteen square units with made-up counts, as `census_coarse.csv` and its raster."""
    folder.mkdir(parents=True)
    with rasterio.open(chip_path) as chip:
        profile = {**chip.profile, "count": 1, "dtype": "uint32", "nodata": 0, "driver": "GTiff"}
    rows, cols = np.mgrid[:512, :512] // 128
    zones = (rows * 4 + cols + 1).astype("uint32")
    with rasterio.open(folder / "boundaries_coarse.tif", "w", **profile) as out:
        out.write(zones, 1)
    lines = ["idx,POP20", *(f"{number},{100 * number}" for number in range(1, 17))]
    (folder / "census_coarse.csv").write_text("\n".join(lines) + "\n")


def materialise(*selection):
    """Some assets of the chip's country-year, in an instance of their own."""
    from popcorn_assets.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [*defs.assets],
            selection=list(selection),
            instance=instance,
            partition_key=partition_key(CODE, 2020),
            resources=defs.resources,
            raise_on_error=False,
        )


IMAGERY = [f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS]
FILLED = ["s1_composites", "s2_composites"]


def failure(result) -> str:
    event = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    error = event.step_failure_data.error
    return (error.cause or error).message


def test_builtup_area_of_published_composites_equals_the_published_code(spain, reference_dir):
    import_extractor(reference_dir / "builtup_extractor.pt", published_weights())
    result = materialise(*IMAGERY, *FILLED, "builtup_extractor", "builtup_area")
    assert result.success, failure(result)
    expected = np.load(reference_dir / "parity.npz")["builtup_score"]
    version = Store(spain.data).latest(Address("builtup_area", CODE, 2020))
    score = raster.read_float(version.file("builtup_score.tif"))
    assert score.shape == (4, 512, 512)
    for season in range(4):
        np.testing.assert_allclose(score[season], expected, atol=SCORE_TOLERANCE, rtol=0)


def test_composites_keep_the_published_values_without_loss(spain, real_dir):
    assert materialise(*IMAGERY, *FILLED).success
    version = Store(spain.data).latest(Address("s1_composites", CODE, 2020))
    with rasterio.open(real_dir / "spain" / "s1_grd_db.tif") as chip:
        np.testing.assert_array_equal(raster.read_float(version.file("winter.tif")), chip.read())


def test_published_census_joins_its_raster_of_units(spain):
    result = materialise("census_units", "census_counts")
    assert result.success, failure(result)
    version = Store(spain.data).latest(Address("census_counts", CODE, 2020))
    counts = json.loads(version.file("counts_coarse.json").read_text())
    assert [unit["people"] for unit in counts] == [100.0 * n for n in range(1, 17)]


def test_without_the_published_weights_the_error_says_how_to_get_them(spain):
    result = materialise(*IMAGERY, *FILLED, "builtup_extractor", "builtup_area")
    assert not result.success
    assert "published extractor is not in the store" in failure(result)
    assert "popcorn weights fetch" in failure(result)
    assert Store(spain.data).find(Address("builtup_area", CODE, 2020)) is None


def test_altered_weights_are_refused(spain, reference_dir, tmp_path):
    from popcorn_ml.errors import WeightsError

    altered = bytearray((reference_dir / "builtup_extractor.pt").read_bytes())
    altered[200_000] ^= 1
    (tmp_path / "altered.pt").write_bytes(altered)
    with pytest.raises(WeightsError, match="sha256"):
        import_extractor(tmp_path / "altered.pt", published_weights())
    assert not published_weights().exists()


def test_a_truncated_composite_is_named_and_nothing_is_published(spain):
    path = spain.data / "published/merged/EE" / REGION / "S2Aspring" / f"{REGION}_S2Aspring.tif"
    path.write_bytes(path.read_bytes()[:300_000])
    result = materialise("s2_spring")
    assert not result.success
    assert path.name in failure(result)
    folder = Store(spain.data).folder(Address("s2_spring", CODE, 2020))
    assert not [p for p in folder.rglob("*") if p.is_file() and p.name != ".publishing.lock"]


def test_a_composite_on_another_grid_is_named(spain):
    path = spain.data / "published/merged/EE" / REGION / "S1summer" / f"{REGION}_S1summer.tif"
    with rasterio.open(path, "r+") as chip:
        chip.transform = chip.transform @ rasterio.Affine.translation(0.5, 0)
    result = materialise("s1_summer")
    assert not result.success
    assert path.name in failure(result)
    assert "expected" in failure(result)


def test_a_census_without_any_pixel_is_refused(spain):
    path = spain.data / "published/processed" / REGION / "boundaries_coarse.tif"
    with rasterio.open(path, "r+") as zones:
        zones.write(np.zeros((512, 512), "uint32"), 1)
    result = materialise("census_units", "census_counts")
    assert not result.success
    assert "boundaries_coarse.tif" in failure(result)
    assert Store(spain.data).find(Address("census_units", CODE, 2020)) is None


def test_a_missing_census_file_is_named(spain):
    (spain.data / "published/processed" / REGION / "census_coarse.csv").unlink()
    result = materialise("census_units")
    assert not result.success
    assert "census_coarse.csv" in failure(result)


@pytest.mark.parametrize("key", ["demo|2015", "demo|2200", "atlantis|2020"])
def test_a_year_or_country_outside_the_partitions_is_refused_by_name(place, key):
    from popcorn_assets.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.DagsterError) as caught:
        defs.resolve_job_def("refresh").execute_in_process(instance=instance, partition_key=key)
    assert key.partition("|")[0] in str(caught.value)
    assert key.partition("|")[2] in str(caught.value)
    assert not list(place.data.iterdir())
