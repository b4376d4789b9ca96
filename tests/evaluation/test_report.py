"""Evaluation of maps and baselines against known people."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch
from popcorn_ml.evaluation import report
from popcorn_ml.evaluation.baselines import uniform_weight
from popcorn_ml.evaluation.report import APPROACHES, evaluate, scatter, scatter_png
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.mapping.dasymetric import adjust
from popcorn_ml.zones import zone_sums

GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 130, 120)
COARSE, FINE = 6, 24


@pytest.fixture
def place(tmp_path):
    """A country whose map is right but for noise, with unmapped pixels and a strip of no unit."""
    rng = np.random.default_rng(8)
    rows, cols = np.indices(GRID.shape)
    fine = (rows // 30 * 6 + np.minimum(cols // 20, 5) + 1).astype(np.uint32)
    coarse = ((rows // 60) * 3 + np.minimum(cols // 40, 2) + 1).astype(np.uint32)
    fine[:, 122:] = coarse[:, 122:] = 0
    builtup = np.clip(rng.normal(0.1, 0.3, GRID.shape), 0, 1).astype(np.float32)
    truth = (builtup * rng.gamma(1.0, 3.0, (12, 13)).repeat(10, 0).repeat(10, 1)).astype(np.float32)
    truth[:, 122:] = np.nan
    people = zone_sums(coarse, truth, COARSE)[1:]
    population = (np.nan_to_num(truth) * rng.uniform(0.7, 1.6, GRID.shape)).astype(np.float32)
    population[35:55, 12:31] = np.nan
    adjusted = adjust(population, coarse, people, builtup)[0].astype(np.float32)
    for name, values in {
        "builtup": builtup, "truth": truth, "population": population, "adjusted": adjusted,
    }.items():  # fmt: skip
        raster.write(tmp_path / f"{name}.tif", values, GRID, [name], np.nan)
    for name, units in {"coarse": coarse, "fine": fine}.items():
        raster.write(tmp_path / f"{name}.tif", units, GRID, [name], 0, resampling="nearest")
    arrays = {"builtup": builtup, "truth": truth, "map": population, "adjusted": adjusted}
    return arrays, coarse, fine, people, zone_sums(fine, truth, FINE)[1:]


def run(folder, people, **more):
    return evaluate(
        grid=GRID,
        population=folder / "population.tif",
        adjusted=folder / "adjusted.tif",
        builtup=folder / "builtup.tif",
        units=folder / "coarse.tif",
        people=people,
        **more,
    )


def test_against_the_definition_of_each_figure(place, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "BLOCK_PX", 50)  # several blocks
    arrays, coarse, fine, people, fine_people = place
    found = run(
        tmp_path,
        people,
        truth=tmp_path / "truth.tif",
        fine_units=tmp_path / "fine.tif",
        fine_people=fine_people,
    )

    def spread(weight):
        return adjust(weight, coarse, people, weight)[0]

    holes = np.isnan(arrays["map"])
    maps = {
        "uniform": spread(uniform_weight(arrays["map"])),
        "builtup": spread(np.where(holes, np.nan, arrays["builtup"])),
        "map": arrays["map"],
        "adjusted": arrays["adjusted"],
    }
    assert tuple(found.metrics) == APPROACHES
    true_cells = cell_sums(arrays["truth"])
    touched = cell_sums((holes & ~np.isnan(arrays["truth"])).astype(float)) > 0
    scored = ~touched & ~np.isnan(true_cells)
    pixels = zone_sums(fine, None, FINE)[1:]
    whole_unit = zone_sums(fine, (~holes).astype(float), FINE)[1:] >= 0.95 * pixels
    assert 0 < whole_unit.sum() < FINE
    for name, values in maps.items():
        cells = cell_sums(np.where(np.isnan(arrays["truth"]), np.nan, values))[scored]
        t = true_cells[scored]
        figures = found.metrics[name]["hectare"]
        assert figures["n"] == scored.sum()
        assert figures["r2"] == pytest.approx(
            1 - ((cells - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(), rel=1e-5
        )
        assert figures["mae"] == pytest.approx(np.abs(cells - t).mean(), rel=1e-5)
        assert figures["rmse"] == pytest.approx(np.sqrt(((cells - t) ** 2).mean()), rel=1e-5)
        units = zone_sums(fine, values, FINE)[1:]
        wrong = np.abs(units - fine_people)[whole_unit]
        assert found.metrics[name]["unit"]["mae"] == pytest.approx(wrong.mean(), rel=1e-5)
        assert found.totals[name] == pytest.approx(np.nansum(values), rel=1e-6)
    assert found.unit_level == "fine"
    assert found.totals["true"] == pytest.approx(np.nansum(arrays["truth"]), rel=1e-6)
    assert (
        found.metrics["adjusted"]["hectare"]["rmse"] < found.metrics["uniform"]["hectare"]["rmse"]
    )


def test_what_was_not_predicted_is_counted_and_never_scored(place, tmp_path):
    """Fault 2: pixels never predicted were scored as zero people."""
    arrays, _, _, people, _ = place
    found = run(tmp_path, people, truth=tmp_path / "truth.tif")
    holes = np.isnan(arrays["map"]) & ~np.isnan(arrays["truth"])
    touched = cell_sums(holes.astype(float)) > 0
    lost = np.nansum(cell_sums(arrays["truth"])[touched])
    for name in APPROACHES:
        figures = found.metrics[name]["hectare"]
        assert figures["unpredicted"] == touched.sum() == 3 * 3
        assert figures["unpredicted_people"] == pytest.approx(lost, rel=1e-6)
    assert found.metrics["map"]["unit"]["unpredicted"] == 1


def test_coarse_units_without_a_finer_level_or_a_truth(place, tmp_path):
    *_, people, _ = place
    found = run(tmp_path, people)
    assert found.unit_level == "coarse"
    assert all("hectare" not in figures for figures in found.metrics.values())
    assert "true" not in found.totals
    for name in ("uniform", "builtup", "adjusted"):
        assert "unit" not in found.metrics[name], "they agree by construction: R2 is 1"
    assert found.metrics["map"]["unit"]["mae"] > 1
    with pytest.raises(ValueError, match="no true raster"):
        scatter_png(found)


def test_units_without_a_known_count_are_left_out(place, tmp_path):
    *_, people, fine_people = place
    unknown = fine_people.copy()
    unknown[[3, 5]] = np.nan
    fine = {"fine_units": tmp_path / "fine.tif"}
    every = run(tmp_path, people, fine_people=fine_people, **fine).metrics["map"]["unit"]
    fewer = run(tmp_path, people, fine_people=unknown, **fine).metrics["map"]["unit"]
    assert fewer["n"] == every["n"] - 2


def test_a_coarse_unit_without_a_count_is_no_ground_to_compare_approaches_on(place, tmp_path):
    arrays, coarse, _, people, fine_people = place
    unknown = people.copy()
    unknown[1] = np.nan
    adjusted = adjust(arrays["map"], coarse, unknown, arrays["builtup"])[0].astype(np.float32)
    raster.write(tmp_path / "adjusted.tif", adjusted, GRID, ["adjusted"], np.nan)
    truth = {"truth": tmp_path / "truth.tif"}
    found = run(tmp_path, unknown, **truth)
    touched = cell_sums(((coarse == 2) & ~np.isnan(arrays["truth"])).astype(float)) > 0
    holes = np.isnan(arrays["map"]) & ~np.isnan(arrays["truth"])
    touched |= cell_sums(holes.astype(float)) > 0
    for name in APPROACHES:
        assert found.metrics[name]["hectare"]["unpredicted"] == touched.sum()
    assert found.metrics["map"]["unit"]["n"] == COARSE - 2  # nor the one with unmapped pixels
    for name in ("uniform", "builtup"):
        assert found.totals[name] == pytest.approx(np.nansum(unknown), rel=1e-6)
    fine = {"fine_units": tmp_path / "fine.tif", "fine_people": fine_people}
    scored = run(tmp_path, unknown, **fine).metrics["map"]["unit"]
    assert scored["n"] == run(tmp_path, people, **fine).metrics["map"]["unit"]["n"] - 4


def test_people_outside_all_units_are_told_apart(place, tmp_path):
    arrays, coarse, _, people, _ = place
    population = np.where(coarse > 0, arrays["map"], np.float32(2.0))
    raster.write(tmp_path / "population.tif", population, GRID, ["population"], np.nan)
    found = run(tmp_path, people, truth=tmp_path / "truth.tif")
    outside = 2.0 * (coarse == 0).sum()
    assert found.totals["map"] - found.totals_in_units["map"] == pytest.approx(outside, rel=1e-6)
    for name in ("uniform", "builtup", "adjusted", "true"):
        assert found.totals_in_units[name] == pytest.approx(found.totals[name], rel=1e-6)


def test_a_report_that_is_complete_and_the_same_twice(place, tmp_path):
    *_, people, _ = place
    one, two = (run(tmp_path, people, truth=tmp_path / "truth.tif") for _ in range(2))
    told = json.dumps(one.as_dict())
    assert set(json.loads(told)["metrics"]) == set(APPROACHES)
    assert told == json.dumps(two.as_dict())
    assert scatter_png(one) == scatter_png(two)
    assert scatter_png(one).startswith(b"\x89PNG")


def test_every_hectare_is_in_the_scatter(place, tmp_path):
    *_, people, _ = place
    found = run(tmp_path, people, truth=tmp_path / "truth.tif")
    for name in APPROACHES:
        assert found.histograms[name].sum() == found.metrics[name]["hectare"]["n"]


@pytest.mark.parametrize(
    ("grid", "named", "least", "most"),
    [
        (GRID, "hectare", 1, 1),
        (replace(GRID, step=20.0), "10 x 10 pixel cell (4 ha)", 4, 4),
        (
            Grid("EPSG:4326", 18.0, 59.8, EARTH_ENGINE_10M_DEG, 130, 120),
            "10 x 10 pixel cell (0.5 ha)", 0.5, 0.51,
        ),
        (
            Grid("EPSG:4326", 6.0, 71.2, 0.02, 130, 120),
            "10 x 10 pixel cell (16,141 to 17,933 ha)", 16_100, 18_000,
        ),
    ],
)  # fmt: skip
def test_every_figure_a_cell_says_of_which_area(tmp_path, grid, named, least, most):
    """Cells of half a hectare were called hectares."""
    ones = np.ones(grid.shape, np.float32)
    for name in ("population", "adjusted", "builtup", "truth"):
        raster.write(tmp_path / f"{name}.tif", ones, grid, [name], np.nan)
    units = np.ones(grid.shape, np.uint32)
    raster.write(tmp_path / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    found = evaluate(
        grid=grid,
        **{name: tmp_path / f"{name}.tif" for name in ("population", "adjusted", "builtup")},
        units=tmp_path / "units.tif",
        people=[float(units.size)],
        truth=tmp_path / "truth.tif",
    )
    assert found.cell_name == named
    assert least <= found.cell_area_ha[0] <= found.cell_area_ha[1] <= most
    cell = found.as_dict()["cell"]
    assert cell == {
        "name": named, "smallest_ha": found.cell_area_ha[0], "largest_ha": found.cell_area_ha[1]
    }  # fmt: skip
    figure = scatter(found)
    assert figure.get_supxlabel() == f"true people per {named}"
    assert figure.get_supylabel() == f"predicted people per {named}"


def test_the_simplest_ways_spread_over_land_and_not_over_pixels(tmp_path):
    """Evenly means by area: with as many people a square kilometre, uniform is exactly right."""
    grid = Grid("EPSG:4326", 6.0, 71.0, 0.05, 30, 260)
    land = np.broadcast_to(grid.relative_area(), grid.shape).astype(np.float32)
    score = np.full(grid.shape, 0.25, np.float32)
    for name, values in {
        "population": land, "adjusted": land, "truth": land, "builtup": score,
    }.items():  # fmt: skip
        raster.write(tmp_path / f"{name}.tif", values, grid, [name], np.nan)
    units = np.ones(grid.shape, np.uint32)
    raster.write(tmp_path / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    found = evaluate(
        grid=grid,
        **{name: tmp_path / f"{name}.tif" for name in ("population", "adjusted", "builtup")},
        units=tmp_path / "units.tif",
        people=[float(land.sum(dtype=float))],
        truth=tmp_path / "truth.tif",
    )
    for approach in ("uniform", "builtup"):
        assert found.metrics[approach]["hectare"]["mae"] == pytest.approx(0, abs=1e-4)


def test_a_truth_on_another_grid_is_refused(place, tmp_path):
    *_, people, _ = place
    elsewhere = Grid(GRID.crs, GRID.west + 5, GRID.north, 10.0, GRID.width, GRID.height)
    raster.write(tmp_path / "else.tif", np.zeros(GRID.shape, np.float32), elsewhere, ["t"], np.nan)
    with pytest.raises(GridMismatch, match=r"else\.tif"):
        run(tmp_path, people, truth=tmp_path / "else.tif")
