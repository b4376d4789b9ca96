"""A real census: Puerto Rico's 78 municipios on the published grid."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.census.build import prepare_counts, prepare_units
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.census.units import strips
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.warehouse.rows import publish

PEOPLE = 3_285_874
FILES = Path(__file__).parents[2] / "popcorn_assets" / "countries" / "files" / "pricp2"
GRID = Grid.covering(
    "EPSG:4326", (-67.282031, 17.874492, -65.205615, 18.522873), EARTH_ENGINE_10M_DEG
)
SECTION = {
    "national_totals": {2020: PEOPLE},
    "levels": {
        "municipio": {
            "role": "train",
            "reader": "us_census",
            "boundaries": {"file": "municipios.geojson", "columns": {"id": "fips", "name": "name"}},
            "counts": {
                "file": "population_2020.csv",
                "year": 2020,
                "columns": {"id": "fips", "name": "name", "people": "pop2020"},
            },
        }
    },
}


def test_puerto_rico(tmp_path: Path) -> None:
    settings = CensusSettings.model_validate(SECTION)
    begun = time.monotonic()
    units = prepare_units("pricp2", 2020, settings, GRID, tmp_path, FILES)
    seconds = time.monotonic() - begun
    counts = prepare_counts("pricp2", 2020, settings, tmp_path, tmp_path, FILES)

    assert [c.name for c in counts.checks if not c.passed] == []
    # Mona island lies west of the published box; it belongs to Mayagüez, and nobody lives there.
    assert [c.name for c in units.checks if not c.passed] == ["unit_pixels"]
    cut = next(c for c in units.checks if not c.passed)
    assert (cut.severity, [r["name"] for r in cut.rows]) == ("warn", ["Mayagüez"])

    assert units.coverage["levels"]["municipio"]["by_centre"] == 78
    covered = counts.coverage["levels"]["municipio"]
    assert (covered["units_matched"], covered["rows_unmatched"]) == (78, 0)
    assert counts.totals == {"municipio": PEOPLE}
    assert all(isinstance(i, str) and len(i) == 5 for i in counts.counts["id"])

    # Every person in exactly one unit, every unit in the raster, and its area is right.
    people = dict(zip(counts.counts["number"], counts.counts["people"], strict=True))
    assert sorted(people) == list(range(1, 79))
    assert sum(people.values()) == PEOPLE
    pixels = np.zeros(79, np.int64)
    for window in strips(GRID):
        numbers = raster.read(units.rasters["municipio"], window, bands=1)
        pixels += np.bincount(numbers.ravel(), minlength=79)
    assert pixels[1:].tolist() == units.units["pixels"].tolist()
    whole = units.units[units.units["name"] != "Mayagüez"]
    off = abs(whole["pixel_area_ha"] / whole["area_ha"] - 1)
    assert off.max() < 1e-3

    warehouse = Warehouse(tmp_path / "w.duckdb")
    publish(warehouse, "units", "pricp2", 2020, units.units)
    publish(warehouse, "counts", "pricp2", 2020, counts.counts)
    assert warehouse.query("SELECT units, people FROM totals") == [(78, float(PEOPLE))]
    densest = "SELECT name FROM density ORDER BY people_per_ha DESC LIMIT 1"
    assert warehouse.query(densest) == [("San Juan",)]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{GRID.width} x {GRID.height} pixels in {seconds:.1f} s, peak {peak_mb:.0f} MB")
    assert seconds < 90
