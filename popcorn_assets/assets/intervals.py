"""What a hectare map says of its own error: the error model, rasters, pictures, rows of units.

The law, its fit and the rasters are popcorn_ml.intervals' business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.assets.census import unit_ids
from popcorn_assets.assets.trained import Trained, trained_on, unseen_by
from popcorn_assets.store.making import Making
from popcorn_assets.store.versions import Store, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json
from popcorn_ml.grid import HECTARE_M2, Grid

if TYPE_CHECKING:
    from popcorn_ml.intervals.units import Given
    from popcorn_ml.intervals.zones import MapFiles

POPULATION = "population.tif"
MEMBERS = "population_members.tif"
COVERAGE = "coverage.json"
COVERAGE_PICTURE = "coverage.png"
WIDTH_PICTURE = "relative_width.png"


@dataclass
class Told:
    """What an asset's outcome gains.

    Attributes:
        shown, facts, rows: for `Outcome`'s shown, its facts and the table `map_intervals`.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Sources:
    """What intervals are made from, all of it noted as inputs.

    Attributes:
        predicted, adjusted: the maps' versions.
        levels: census level -> raster of its units.
        level: that the map is adjusted to.
        people: counted in its units 1..n, NaN without a count.
        trained: of the model.
        grid: of the maps.
    """

    predicted: Version
    adjusted: Version
    levels: dict[str, Path]
    level: str
    people: Sequence[float]
    trained: Trained
    grid: Grid

    def files(self, folder: Path) -> "MapFiles":
        """For `people_in`, with the error model in a hectare map's folder."""
        from popcorn_ml.intervals.zones import MapFiles

        return MapFiles.of_folders(
            self.predicted.path, self.adjusted.path, folder, self.levels[self.level]
        )


def map_files(store: Store, hectares: Version) -> "MapFiles":
    """For `people_in`: the files behind a version of `hectare_map`.

    Raises:
        StoreError: what it was made from is no longer in the store.
    """
    from popcorn_ml.intervals.zones import MapFiles

    adjusted = store.made_from(hectares, "adjusted_map")
    predicted = store.made_from(adjusted, "population_map")
    units = store.made_from(adjusted, "census_units")
    level = adjusted.manifest()["parameters"]["level"]
    return MapFiles.of_folders(
        predicted.path, adjusted.path, hectares.path, units.file(f"units_{level}.tif")
    )


def model_behind(making: Making, predicted: Version) -> Trained:
    """What a map's model was trained on; the model noted as an input where it is there."""
    try:
        trained = trained_on(making.store, predicted)
    except StoreError:  # not told by old maps: units count as seen by all of its members
        return Trained(making.country, making.year, {making.country: ""}, None)
    try:
        if trained.model is not None:
            making.input(
                trained.model.address.asset,
                country=trained.country,
                year=trained.year,
                version=trained.model.version,
            )
    except StoreError:
        return replace(trained, model=None)
    return trained


def give_intervals(
    making: Making,
    sources: Sources,
    folder: Path,
    *,
    threads: int = 2,
    tags: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Told:
    """Write error model, intervals, reliability and pictures into a hectare map's folder.

    Where no interval can be given nothing is written; the facts say why.
    """
    from popcorn_ml.intervals.hectares import RULE, write_intervals
    from popcorn_ml.intervals.measures import measure
    from popcorn_ml.intervals.model import MODEL_FILE
    from popcorn_ml.mapping.dasymetric import ADJUSTMENT_FILE, read_adjustment

    units = sources.levels[sources.level]
    maps = [version.file(POPULATION) for version in (sources.predicted, sources.adjusted)]
    (of_map, of_adjusted), by_member = measure(
        units,
        maps,
        sources.grid,
        len(sources.people),
        members=sources.predicted.file(MEMBERS),
        threads=threads,
    )
    given = _given(making, sources, of_map, by_member)
    if given.model is None:
        making.context.log.warning(given.why)
        return Told({"intervals": given.why}, {"intervals": {"given": False, "why": given.why}})
    write_json(folder / MODEL_FILE, given.model.as_dict())
    method = read_adjustment(sources.adjusted.file(ADJUSTMENT_FILE)).method
    written = write_intervals(
        given.model,
        sources.grid,
        folder,
        population=maps[0],
        adjusted=maps[1],
        units=units,
        unit_measures=of_adjusted,
        method=method,
        tags=tags,
        progress=progress,
    )
    coverage = _coverage(given, folder)
    _pictures(folder, written.relative_width)
    cells = sources.grid.cell_name
    usable = {
        f"{cells}s to be used at this scale": f"{written.usable_cells:,} of {written.cells:,}",
        "people in them": f"{written.usable:.1%}",
    }
    if written.not_known:
        usable[f"{cells}s without an interval"] = f"{written.not_known:,}"
    return Told(
        {"intervals": given.why, "intervals hold": coverage, **usable},
        {
            "intervals": {
                "given": True,
                "why": given.why,
                "reliability": RULE,
                "model": given.model.as_dict(),
            }
        },
        rows_of_units(sources, folder, threads),
    )


def _given(making: Making, sources: Sources, of_map: Any, by_member: Any) -> "Given":
    """The error model, or why there is none."""
    from popcorn_ml.intervals.units import give, unseen_units

    trained = sources.trained
    unseen = unseen_units(
        of_map,
        by_member,
        sources.people,
        unseen_by(trained, making.country, sources.level, sources.levels[sources.level]),
        sources.grid.pixel_area_m2 / HECTARE_M2,
    )
    return give(
        unseen,
        level=sources.level,
        country=making.country,
        year=making.year,
        trained_on=(trained.place_for(making.country), trained.year),
        by_folds=trained.kind == "student",
    )


def _coverage(given: "Given", folder: Path) -> list[dict[str, Any]]:
    """Write how many units the intervals held when fitted without them; the overall rows."""
    from popcorn_ml.intervals.coverage import coverage_png, of_fitted

    assert given.fitted is not None
    found = of_fitted(given.fitted)
    write_json(folder / COVERAGE, [row.as_dict() for row in found])
    (folder / COVERAGE_PICTURE).write_bytes(coverage_png(found))
    return [row.as_dict() for row in found if row.by == "all"]


def _pictures(folder: Path, relative_width: Any) -> None:
    """The relative width, and the folder's picture: population with the width beside it."""
    from popcorn_assets.show import PICTURE, PICTURE_PX
    from popcorn_ml.mapping.pictures import side_by_side, thumbnail

    title = "Width of the 80 % interval, over the estimate"
    width = thumbnail(relative_width, "relative_width", max_px=PICTURE_PX, title=title)
    (folder / WIDTH_PICTURE).write_bytes(width)
    (folder / PICTURE).write_bytes(side_by_side([(folder / PICTURE).read_bytes(), width]))


def rows_of_units(sources: Sources, folder: Path, threads: int) -> list[dict[str, Any]]:
    """`map_intervals`: units of every level in both maps; those without a value have no row."""
    from popcorn_ml.intervals.zones import COLUMNS, Ready, asked

    files, rows = sources.files(folder), []
    for product in ("map", "adjusted"):
        ready = Ready.of(files, product, threads=threads)
        for level, raster in sources.levels.items():
            ids = unit_ids(raster)
            found = asked(raster, ready)
            found = found[found["people"].notna()]
            values = found[["people", *COLUMNS.values()]].to_dict("records")
            rows += [
                {
                    "level": level,
                    "unit_id": ids[int(number)],
                    "product": product,
                    **{str(name): value for name, value in row.items()},
                    "basis": ready.model.basis.told,
                }
                for number, row in zip(found.index.to_numpy(), values, strict=True)
            ]
    return rows
