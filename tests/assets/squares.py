"""A country of squares with population maps of two years by one model, all put there by hand.

What is made from them is made by the assets themselves.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import geopandas as gpd
import numpy as np
import shapely
import yaml
from safetensors.numpy import save_file

from popcorn_assets.partitions import partition_key
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.sentinel import SEASONS, SENSORS
from tests.platforms import Place

COLUMNS, ROWS, SIDE = 12, 10, 200.0
GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 20 * COLUMNS, 20 * ROWS)
MADE = ("census_units", "census_counts", "adjusted_map", "hectare_map", "evaluation", "change")
YEARS = (2020, 2021)
SEEDS = (1600, 1601)
GREW = ((3, 4), (8, 15), (15, 20))
"""Hectares, as row and column, where `TOWN` people moved to in 2021."""
TOWN = 300.0


def squares(side: int) -> tuple[list[str], list[shapely.Polygon]]:
    """Identifiers and boxes of all squares of so many pixels, row by row."""
    across, down = GRID.width // side, GRID.height // side
    step = side * GRID.step
    boxes = [
        shapely.box(
            GRID.west + c * step, GRID.north - (r + 1) * step,
            GRID.west + (c + 1) * step, GRID.north - r * step,
        )
        for r in range(down)
        for c in range(across)
    ]  # fmt: skip
    return [f"{'q' if side == 10 else 'u'}{k:03d}" for k in range(len(boxes))], boxes


@dataclass
class Squares:
    """The country's true people, its maps, and where it lies."""

    place: Place
    model: dict[int, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.place.data)

    def truth(self, year: int) -> np.ndarray:
        """True people per pixel."""
        rng = np.random.default_rng(11)
        cells = rng.gamma(0.8, 40.0, (GRID.height // 10, GRID.width // 10))
        if year == 2021:
            for at in GREW:
                cells[at] += TOWN
        weight = rng.gamma(0.5, 1.0, GRID.shape)
        return weight * (cells / cell_sums(weight)).repeat(10, 0).repeat(10, 1)

    def members(self, year: int) -> np.ndarray:
        """What two members have of it: wrong by nearly the same in both years."""
        rng, light = np.random.default_rng(12), np.random.default_rng(year)
        shape = (2, GRID.height // 10, GRID.width // 10)
        wrong = rng.gamma(9.0, 1 / 9.0, shape) * light.gamma(900.0, 1 / 900.0, shape)
        return (self.truth(year) * wrong.repeat(10, 1).repeat(10, 2)).astype(np.float32)

    def write(self, **settings: Any) -> None:
        """Country file and census of both years."""
        census = self.place.data / "census" / "demo"
        census.mkdir(parents=True, exist_ok=True)
        levels = {}
        for level, side, role in (("square", 20, "train"), ("quarter", 10, "evaluate")):
            ids, boxes = squares(side)
            frame = gpd.GeoDataFrame({"id": ids}, geometry=boxes, crs=GRID.crs)
            frame.to_file(census / f"{level}.gpkg")
            for year in YEARS:
                people = cell_sums(self.truth(year), side).ravel()
                with open(census / f"{level}_{year}.csv", "w", newline="") as stream:
                    out = csv.writer(stream)
                    out.writerow(["id", "people"])
                    out.writerows(zip(ids, np.rint(people).astype(int).tolist(), strict=True))
            levels[level] = {
                "role": role,
                "boundaries": {"file": f"{level}.gpkg", "columns": {"id": "id"}},
                "counts": {
                    "file": level + "_{year}.csv", "columns": {"id": "id", "people": "people"},
                },
            }  # fmt: skip
        west, south, east, north = GRID.bounds
        written = {
            "name": "Squares",
            "grid": {"crs": GRID.crs, "bounds": [west, south, east, north]},
            "imagery": {"source": "files", "files": {"root": "none", "region": "none"}},
            "census": {"levels": levels},
            "model": {"country": "demo", "year": 2020},
            **settings,
        }
        (self.place.home / "countries" / "demo.yaml").write_text(yaml.safe_dump(written))

    def publish(
        self, asset: str, year: int, files: Any, *, inputs: Any = (), **manifest: Any
    ) -> dict[str, Any]:
        """A version by hand; how another one names it among its inputs."""
        address = Address(asset, "demo", year)
        with self.store.draft(address) as draft:
            files(draft)
            plain = {"checks": [], "facts": {}, "parameters": {}, "shown": [], **manifest}
            made = self.store.publish(address, draft, {"inputs": list(inputs), **plain})
        return {"asset": asset, "country": "demo", "year": year, "version": made.version}

    def publish_model(self, seed: int = 0) -> dict[str, Any]:
        """Checkpoints of two members that each held out every second square."""
        ids, _ = squares(20)
        people = cell_sums(self.truth(2020), 20).ravel()
        by = [cell_sums(values, 20).ravel() for values in self.members(2020)]

        def files(draft: Path) -> None:
            for member in SEEDS:
                (draft / f"member_{member}").mkdir()
                save_file(
                    {"bias": np.full(1, seed, np.float32)},
                    draft / f"member_{member}" / "occupancy.safetensors",
                )
            rows = [
                {
                    "id": unit, "number": k + 1, "people": float(people[k]),
                    "predicted": float(by[k % 2][k]), "members": 1, "fold": k % 2,
                    "by": {str(SEEDS[k % 2]): float(by[k % 2][k])},
                }
                for k, unit in enumerate(ids)
            ]  # fmt: skip
            (draft / "out_of_fold.json").write_text(json.dumps(rows))

        return self.publish("checkpoints", 2020, files, facts={"seeds": list(SEEDS)})

    def publish_map(self, year: int, model: dict[str, Any], product: str = "L2A") -> None:
        """A population map, and the composites and decision behind it."""
        decision = {
            "country": "demo", "year": 2020, "version": model["version"], "level": "square",
        }  # fmt: skip
        inputs = [
            self.publish(
                "deployed_model", year, lambda d: _json(d / "deployed.json", decision),
                inputs=[model],
            )
        ]  # fmt: skip
        for sensor in SENSORS:
            seasons = [
                self.publish(f"{sensor}_{season}", year, lambda d, s=season: _clear(d, year, s))
                for season in SEASONS
            ]
            shares = {season: {"B02": {"observed": 0.9}} for season in SEASONS}
            facts = {"provenance": {"level": product}, "shares": shares}
            said = f"{sensor} {year} {product}"
            inputs.append(
                self.publish(
                    f"{sensor}_composites", year, lambda d, t=said: _json(d / "said.json", t),
                    inputs=seasons, facts=facts,
                )
            )  # fmt: skip
        members = self.members(year)
        mean, std = members.mean(axis=0), members.std(axis=0, ddof=1)

        def files(draft: Path) -> None:
            for name, values in {
                "population": mean, "population_std": std, "population_members": members,
                "builtup_score": np.clip(mean / 5, 0, 1),
            }.items():  # fmt: skip
                bands = [name] if values.ndim == 2 else ["1", "2"]
                raster.write(draft / f"{name}.tif", values, GRID, bands, np.nan)

        self.publish("population_map", year, files, inputs=inputs, shown=[["model", "demo|2020"]])

    def make(self, year: int, *names: str) -> dg.ExecuteInProcessResult:
        """Materialise what follows a map, with Dagster, as a run of its own."""
        from popcorn_assets.definitions import defs

        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize(
                defs.assets,
                selection=dg.AssetSelection.assets(*(names or MADE)),
                instance=instance,
                partition_key=partition_key("demo", year),
                resources=defs.resources,
                raise_on_error=False,
            )

    def latest(self, asset: str, year: int):
        return self.store.latest(Address(asset, "demo", year))


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def _clear(draft: Path, year: int, season: str) -> None:
    """Observed everywhere, but for the upper left of 2021's summer and autumn."""
    counts = np.full(GRID.shape, 3, np.uint16)
    if year == 2021 and season in ("summer", "autumn"):
        counts[:50, :50] = 0
    raster.write(draft / "clear_count.tif", counts, GRID, ["n"], 65534, resampling="nearest")
    _json(draft / "said.json", f"{year} {season}")
