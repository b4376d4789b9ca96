"""The folder of a country-year: every file that people outside open, made from one set of versions.

What cannot be made is left out, and the facts say why; nothing that is there stands for something
else. On a grid of metric pixels the hectares are the map's own; on one in degrees the cells of
10 x 10 pixels are called cells, and true 100 m cells are made of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from popcorn_ml.errors import RasterError
from popcorn_ml.files import write_bytes, write_json
from popcorn_ml.mapping.pictures import thumbnail
from popcorn_ml.publishing import empty_cells, other_grids, products, quality
from popcorn_ml.publishing.catalogue import write_catalogue, write_year
from popcorn_ml.publishing.facts import facts_of, scenes_of, why_no_intervals, write_scenes
from popcorn_ml.publishing.hexagons import COLUMNS as HEXAGON_COLUMNS
from popcorn_ml.publishing.hexagons import write_hexagons
from popcorn_ml.publishing.names import ARC_SECONDS, CELLS, HECTARE, PIXEL, Names
from popcorn_ml.publishing.origin import Origin
from popcorn_ml.publishing.products import Product, Written, copied, write_product
from popcorn_ml.publishing.report import write_report
from popcorn_ml.publishing.unit_tables import COLUMNS, UnitRows, unit_frame, write_units
from popcorn_ml.publishing.web import write_web_map
from popcorn_ml.sentinel import SEASONS, SENSORS

Progress = Callable[[int, int], None]

POPULATION = "population.tif"
INTERVALS = "intervals.tif"
RELIABILITY = "reliability.tif"
CHANGE = "change.tif"
PREVIEW_PX = 600
BUILTUP = "builtup_score.tif"
OCCUPANCY = "occupancy.tif"


@dataclass
class Making:
    """A folder in the making.

    Attributes:
        origin: what it is made of.
        out: the folder.
        written: rasters so far.
        left_out: what there is not, and why.
    """

    origin: Origin
    out: Path
    written: list[Written] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def names(self) -> Names:
        """Of the files."""
        return Names(self.origin.code, self.origin.year)

    @property
    def native(self) -> str:
        """What the map's own cells of 10 x 10 pixels are called in a file's name."""
        return HECTARE if self.origin.grid.cell_name == "hectare" else CELLS

    def path(self, product: Product, cells: str) -> Path:
        """Where a raster goes."""
        what = product.what
        if self.origin.change_from is not None:
            what = what.replace("{from_year}", str(self.origin.change_from))
        what = what.replace("{year}", str(self.origin.year)).replace("{level}", self.origin.level)
        return self.out / self.names.raster(what, cells)

    def copy(self, product: Product, source: Path, cells: str, **options: Any) -> None:
        """Publish a version's own raster."""
        self.written.append(
            copied(product, source, self.path(product, cells), self.origin.tags(), **options)
        )

    def leave_out(self, what: str, why: str) -> None:
        """Say that something is not there."""
        self.left_out.append({"what": what, "why": why})


def publish(origin: Origin, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Make a country-year's folder: rasters with styles, tables, and its facts.

    Args:
        origin: the versions that it is made of.
        out: an existing empty folder.
        progress: called with (steps done, steps).

    Returns:
        The facts, which are in the folder as well.

    Raises:
        RasterError: people would be lost, or a raster is unreadable or cannot be written.
    """
    making = Making(origin, out)
    steps: tuple[Callable[[Making], Any], ...] = (
        hectares, pixels, true_cells, arc_seconds, masked_map, tables, hexagon_table,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for done, step in enumerate(steps, start=1):
        found[step.__name__] = step(making)
        if progress is not None:
            progress(done, len(steps))
    facts = facts_of(
        origin,
        making.written,
        tables=[*found["tables"], found["hexagon_table"]["table"]],
        hexagons=found["hexagon_table"]["people"],
        mask=found["masked_map"],
        left_out=making.left_out,
    )
    write_json(out / making.names.facts, facts)
    write_scenes(origin, out / making.names.scenes)
    write_preview(out / _file(facts, "population"), out / making.names.preview)
    write_report(out, facts)
    write_year(out, facts, scenes_of(origin))  # after all files that it has digests of
    finish(out)
    return facts


def finish(folder: Path) -> None:
    """Write what the country-years of a folder share: the catalogue and the web map."""
    write_catalogue(folder)
    write_web_map(folder)


def write_preview(population: Path, out: Path) -> None:
    """A small picture of the map, for catalogues."""
    write_bytes(out, thumbnail(population, "population", max_px=PREVIEW_PX))


def _file(facts: Mapping[str, Any], role: str) -> str:
    return next(one["file"] for one in facts["products"] if one["role"] == role)


def hectares(making: Making) -> None:
    """The map's own cells: people, intervals, reliability, change."""
    origin = making.origin
    cells, cell = origin.grid.hectares(), origin.grid.cell_name
    own = {"grid": cells, "cell": cell}
    folder = origin.folders["hectare_map"]
    making.copy(products.POPULATION, folder / POPULATION, making.native, **own)
    making.copy(products.UNADJUSTED, folder / "unadjusted" / POPULATION, making.native, **own)
    for product, path in (
        (products.INTERVALS, folder / INTERVALS),
        (products.INTERVALS_UNADJUSTED, folder / "unadjusted" / INTERVALS),
        (products.RELIABLE, folder / RELIABILITY),
    ):
        if path.is_file():
            making.copy(product, path, making.native, **own)
        else:
            making.leave_out(product.role, why_no_intervals(origin))
    if origin.change_from is None:
        making.leave_out(products.CHANGED.role, origin.why_no_change or "no earlier year is mapped")
    else:
        making.copy(products.CHANGED, origin.file("change", CHANGE), making.native, **own)


def pixels(making: Making) -> None:
    """The pixels: people, what the networks saw, how good the input was."""
    origin = making.origin
    grid, folder = origin.grid, origin.folders["population_map"]
    adjusted = origin.file("adjusted_map", POPULATION)
    making.copy(products.PIXELS, adjusted, PIXEL, grid=grid)
    making.copy(products.PIXELS_UNADJUSTED, folder / POPULATION, PIXEL, grid=grid)
    making.copy(products.OCCUPANCY_RATE, folder / OCCUPANCY, PIXEL, grid=grid)
    making.copy(products.BUILTUP, folder / BUILTUP, PIXEL, grid=grid)
    units = origin.file("census_units", f"units_{origin.level}.tif")
    making.copy(products.UNITS, units, PIXEL, grid=grid, bands=["number of the census unit"])
    seasons: dict[str, dict[str, Path]] = {
        sensor: {str(season): origin.folders[f"{sensor}_{season}"] for season in SEASONS}
        for sensor in SENSORS
    }
    reliability = origin.file("hectare_map", RELIABILITY)
    read = quality.quality(
        seasons, folder / POPULATION, grid, reliability if reliability.is_file() else None
    )
    making.written.append(
        write_product(
            products.QUALITY,
            making.path(products.QUALITY, PIXEL),
            grid,
            quality.BANDS,
            read,
            {**origin.tags(), "rule": quality.RULE},
            dtype="uint16",
            nodata=quality.NODATA,
        )
    )


def true_cells(making: Making) -> None:
    """Real 100 m cells, where the map's own are none."""
    origin = making.origin
    if making.native == HECTARE:
        return
    target = other_grids.true_100m(origin.grid)
    for product, asset in (
        (products.TRUE_HECTARES, "adjusted_map"),
        (products.TRUE_HECTARES_UNADJUSTED, "population_map"),
    ):
        _moved(making, product, origin.file(asset, POPULATION), target, HECTARE, "hectare")


def arc_seconds(making: Making) -> None:
    """WorldPop's grid of 3 arc-seconds."""
    origin = making.origin
    try:
        target = other_grids.worldpop_grid(origin.grid)
    except RasterError as error:
        making.leave_out(products.ARC_SECONDS.role, error.what)
        return
    source = origin.file("adjusted_map", POPULATION)
    _moved(making, products.ARC_SECONDS, source, target, ARC_SECONDS, "3 arc-second cell")


def _moved(
    making: Making, product: Product, source: Path, target: Any, cells: str, cell: str
) -> None:
    values, _ = other_grids.moved(source, target, making.origin.threads)
    making.written.append(
        write_product(
            product,
            making.path(product, cells),
            target,
            [f"people per {cell}"],
            lambda window: values[window.slices],
            making.origin.tags(),
            cell=cell,
        )
    )


def masked_map(making: Making) -> dict[str, Any]:
    """The map with empty cells empty."""
    origin = making.origin
    population = origin.file("adjusted_map", POPULATION)
    units = origin.file("census_units", f"units_{origin.level}.tif")
    plan = empty_cells.plan(population, units, _count(units), origin.grid)
    read = empty_cells.masked(population, units, origin.grid, plan)
    making.written.append(
        write_product(
            products.MASKED,
            making.path(products.MASKED, making.native),
            origin.grid.hectares(),
            [f"people per {origin.grid.cell_name}"],
            read,
            {**origin.tags(), "rule": empty_cells.RULE},
            cell=origin.grid.cell_name,
        )
    )
    return plan.as_fact()


def _count(units: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(units.with_suffix(".parquet")).num_rows


def tables(making: Making) -> list[dict[str, Any]]:
    """The census units."""
    origin = making.origin
    frame = unit_frame(
        origin.code, origin.year, origin.levels, origin.folders["census_units"],
        origin.folders["census_counts"], _placed(origin), origin.grid,
    )  # fmt: skip
    written = write_units(frame, making.out / making.names.units)
    formats = ("GeoPackage, a layer a census level", "GeoParquet 1.1", "CSV, without geometry")
    if not origin.rows.intervals:
        making.leave_out("intervals of units", why_no_intervals(origin))
    return [
        {
            "role": f"units_{path.suffix.lstrip('.')}",
            "file": path.name,
            "format": form,
            "rows": len(frame),
            "columns": COLUMNS,
            **({"style": path.with_suffix(".qml").name} if path.suffix == ".gpkg" else {}),
        }
        for path, form in zip(written, formats, strict=True)
    ]


def _placed(origin: Origin) -> UnitRows:
    """What is known of the units, with how the adjusted people were placed in them."""
    from popcorn_ml.mapping.dasymetric import ADJUSTMENT_FILE, read_adjustment
    from popcorn_ml.mapping.placing import METHODS

    adjustment = read_adjustment(origin.file("adjusted_map", ADJUSTMENT_FILE))
    methods = {unit: METHODS[number] for unit, number in enumerate(adjustment.method) if unit}
    return replace(origin.rows, placed={origin.level: methods})


def hexagon_table(making: Making) -> dict[str, Any]:
    """People by hexagon."""
    origin = making.origin
    path = making.out / making.names.hexagons
    people = write_hexagons(
        origin.file("adjusted_map", POPULATION),
        origin.file("population_map", POPULATION),
        origin.grid,
        path,
    )
    table = {"role": "hexagons", "file": path.name, "format": "Parquet", "columns": HEXAGON_COLUMNS}
    return {"people": people, "table": table}
