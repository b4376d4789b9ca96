"""Built-up area: the frozen extractors, and their score of every pixel in every season.

Which buildings a network finds is popcorn_ml.model's and popcorn_ml.mapping.builtup's business.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

import popcorn_ml
from popcorn_assets.assets.extractors import EXTRACTOR, Extractor
from popcorn_assets.assets.imagery import FILLED, composites_by_season
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import published_weights
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import raster_summary, save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Address, Version
from popcorn_ml.errors import StoreError, WeightsError
from popcorn_ml.mapping.spec import Composites
from popcorn_ml.sentinel import Season

GROUP = "builtup"
CODE = code_digest("model", "mapping")
GPU_POOL = "gpu"
BUILTUP = "builtup_score.tif"

WHOLE = "whole"
"""Written beside half-done work when it is done."""

RAN = "networks run by"
"""Among a map's facts: engine, its version, precision and device of what ran the networks."""

DEMO_EXTRACTOR = (
    Path(popcorn_ml.__file__).parent / "simulate" / "weights" / "demo_extractor.safetensors"
)


@dg.asset(
    name=EXTRACTOR, group_name=GROUP, kinds={"pytorch"}, code_version=CODE, config_schema=NOTHING
)
def builtup_extractor(
    context: dg.AssetExecutionContext, store: StoreResource
) -> dg.MaterializeResult:
    """Frozen networks that find built-up area: the published one where it was fetched, and the
    demo country's own. A country's file says which it uses."""
    from popcorn_ml.model.importing import import_extractor
    from popcorn_ml.model.stored import read_card

    making = Making(context, store.open(), EXTRACTOR, code_version=CODE, partitioned=False)
    available = {"demo": DEMO_EXTRACTOR}
    if published_weights().is_file():
        available["published"] = published_weights()
    for path in available.values():
        making.source(path)

    def make(folder: Path) -> Outcome:
        rows = []
        for name, path in available.items():
            target = import_extractor(path, folder / f"{name}.safetensors")
            card = read_card(target)
            rows.append({"extractor": name, "what": card.get("name", ""), "sha256": card["sha256"]})
        shown: dict[str, Any] = {"extractors": rows}
        if "published" not in available:
            shown["published"] = "not here: popcorn weights fetch, or popcorn weights import FILE"
        return Outcome(shown)

    return making.publish(make)


def extractor_file(making: Making, country: Country) -> Path:
    """The weights of the extractor that a country uses, noted as an input.

    Raises:
        WeightsError: they are not in the store.
    """
    name = f"{country.extractor}.safetensors"
    try:
        return making.input(EXTRACTOR, partitioned=False, files=[name]).file(name)
    except StoreError as error:
        raise WeightsError(
            f"the {country.extractor} extractor is not in the store",
            where=making.store.folder(Address(EXTRACTOR)),
            found=error.what,
            remedy=f"popcorn weights fetch (or import FILE), then materialise {EXTRACTOR}",
        ) from error


@dg.asset(
    config_schema=NOTHING,
    deps=[EXTRACTOR, "s1_composites", "s2_composites"],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool=GPU_POOL,
    kinds={"cog", "pytorch"},
    code_version=CODE,
)
def builtup_area(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """Built-up score (0 to 1) of every pixel in each season, by the frozen extractor."""
    from popcorn_ml.mapping.builtup import BuiltupSpec

    making = Making(context, store.open(), "builtup_area", code_version=CODE)
    country = load_country(making.country)
    grid = making.grid(country)
    composites = composites_by_season(making)
    weights = extractor_file(making, country)
    making.parameter(grid=grid.as_dict(), tile_px=country.mapping.tile_px, **named_engine(compute))

    def make(folder: Path) -> Outcome:
        written = launch.map_builtup(
            context,
            compute,
            BuiltupSpec(
                composites=composites,
                extractor=weights,
                grid=grid,
                out=folder / BUILTUP,
                **tile_work(country, compute),
                tags=place_tags(making),
            ),
            making.progress("tiles"),
        )
        save_picture(folder, folder / BUILTUP, "builtup", f"Built-up score, {making.place()}")
        return Outcome(
            {"extractor": country.extractor, **raster_summary(folder / BUILTUP, None)},
            {**Extractor.of_file(weights).as_fact(), RAN: written["ran"]},
        )

    return making.publish(make)


def looked_at(composites: Mapping[Season, Composites], sensors: str) -> dict[Season, Composites]:
    """The composites of some sensors: "both", "s2" or "s1"; None in the other's place."""
    return {
        season: (s1 if sensors != "s2" else None, s2 if sensors != "s1" else None)
        for season, (s1, s2) in composites.items()
    }


def score_seen(
    making: Making,
    compute: ComputeResource,
    country: Country,
    score: Version,
    seen: Mapping[Season, Composites],
    extractor: Path | None,
) -> Path:
    """The built-up score that a model goes by: `builtup_area`, unless it looks at one sensor only.

    That sensor's score is made in this run's own half-done work; one that an earlier try of the
    very same work has finished is taken as it is.

    Args:
        score: a version of `builtup_area`.
        seen: composites that the model looks at.
        extractor: to make a score of them with; None: it looks at both sensors.
    """
    from popcorn_ml.mapping.builtup import BuiltupSpec

    if extractor is None:
        return score.file(BUILTUP)
    with part_of_work(making.lone_work() / "score") as (folder, done):
        if not done:
            making.context.log.info("making the built-up score of the one sensor looked at")
            launch.map_builtup(
                making.context,
                compute,
                BuiltupSpec(
                    composites=seen,
                    extractor=extractor,
                    grid=country.pixel_grid(),
                    out=folder / BUILTUP,
                    **tile_work(country, compute),
                    tags=place_tags(making),
                ),
                making.progress("tiles of the built-up score"),
            )
    return folder / BUILTUP


@contextmanager
def part_of_work(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A folder for one part of half-done work, and whether an earlier try has finished it.

    A part that was not finished is begun anew. One that was keeps its files as they are, times of
    change included, by which a training that reads them knows that it may go on.
    """
    whole = folder / WHOLE
    done = whole.is_file()
    if not done:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    yield folder, done
    whole.touch()


def tile_work(country: Country, compute: ComputeResource) -> dict[str, Any]:
    """How the tiles of a map are worked on, as the specification of every map has it."""
    return {
        "tile_px": country.mapping.tile_px,
        "device": compute.device,
        "engine": compute.engine,
        "threads": compute.thread_count(),
    }


def named_engine(compute: ComputeResource) -> dict[str, str]:
    """The engine among a map's parameters: one asked for by name. Left to choose, any may have
    made the version, as they give the same to 1e-5; which one did, its facts say."""
    return {} if compute.engine == "auto" else {"engine": compute.engine}


def place_tags(making: Making) -> dict[str, str]:
    """What a raster says of where and when it is, whatever its model was trained on."""
    return {"country": making.country, "year": str(making.year)}


def builtup_of_composites(making: Making) -> Version:
    """The built-up score, noted as an input, if it was made from the current composites.

    Raises:
        StoreError: it was made from others.
    """
    score = making.input("builtup_area")
    for entry in score.manifest()["inputs"]:
        current = making.store.find(Address(entry["asset"], making.country, making.year))
        if entry["asset"] in FILLED and (current is None or current.version != entry["version"]):
            raise StoreError(
                "the built-up score was made from other composites than the current ones",
                where=score.path,
                expected=f"{entry['asset']} version {current.version if current else 'none'}",
                found=entry["version"],
                remedy=f"materialise {score.address} again",
            )
    return score


assets: list[dg.AssetsDefinition] = [builtup_extractor, builtup_area]
