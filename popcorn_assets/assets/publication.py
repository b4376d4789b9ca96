"""Publication: what people outside open, made from the maps and all that is known of them.

What the files hold is popcorn_ml.publishing's business; here is which versions they are made from.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS, levels_of
from popcorn_assets.assets.evaluation import evaluation
from popcorn_assets.assets.imagery import FILLED
from popcorn_assets.assets.maps import adjusted_map, hectare_map, population_map
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.entries import CHECKPOINTS
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.show import save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.recipe import ROWS
from popcorn_assets.store.records import Records
from popcorn_assets.store.versions import Version
from popcorn_ml.errors import StoreError
from popcorn_ml.sentinel import SEASONS, SENSORS

if TYPE_CHECKING:
    from popcorn_ml.publishing.origin import Origin
    from popcorn_ml.publishing.unit_tables import UnitRows

GROUP = "publication"
PUBLICATION = "publication"
CODE = code_digest("publishing", "mapping", "census")


@dg.asset(
    config_schema=NOTHING,
    name=PUBLICATION,
    deps=[population_map, adjusted_map, hectare_map, evaluation],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool="duckdb",
    kinds={"cog", "stac"},
    code_version=CODE,
)
def publication(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """Maps, tables, a report, a web map and a catalogue, as `popcorn export` copies them out."""
    from popcorn_ml.publishing.folder import publish

    making = Making(context, store.open(), PUBLICATION, code_version=CODE)
    origin = origin_of(making, load_country(making.country), compute.thread_count())

    def make(folder: Path) -> Outcome:
        facts = publish(origin, folder, progress=making.progress("steps"))
        population = next(one for one in facts["products"] if one["role"] == "population")
        title = f"People, published, {making.place()}"
        save_picture(folder, folder / population["file"], "population", title)
        return Outcome(
            {
                "people": population["people"],
                "model": origin.model,
                "licence": facts["licence"],
                "files": sum(1 for path in folder.rglob("*") if path.is_file()),
                "left out": facts["left_out"],
            }
        )

    return making.publish(make)


def origin_of(making: Making, country: Country, threads: int) -> "Origin":
    """The versions that a publication is made of, each noted as an input.

    What belongs together is read together: the census and the images are those that the hectares
    were made from, whatever has come in since.

    Raises:
        StoreError: hectares and evaluation are of different maps, or the warehouse has not the
            rows of the evaluation.
    """
    from popcorn_ml.publishing.origin import Origin, Terms

    versions = _versions(making)
    adjusted = versions["adjusted_map"]
    level = adjusted.manifest()["parameters"]["level"]
    known = levels_of(making, adjusted)
    settings = country.census.levels
    making.parameter(
        name=country.name,
        terms=country.publication.model_dump(mode="json"),
        levels=known,
    )
    return Origin(
        code=making.country,
        year=making.year,
        name=country.name,
        grid=making.grid(country),
        manifests={asset: version.manifest() for asset, version in versions.items()},
        folders={asset: version.path for asset, version in versions.items()},
        level=level,
        levels={
            name: settings[name].role if name in settings else "no longer in the country's file"
            for name in (*settings, *known)
            if name in known
        },
        rows=_rows(making, versions["evaluation"]),
        terms=Terms(**country.publication.model_dump()),
        why_no_change="no earlier year was compared with",
        simulated=bool(country.evaluation.truth),
        threads=threads,
    )


def _versions(making: Making) -> dict[str, Version]:
    """Asset -> version, of everything that is told of."""
    hectares = making.input("hectare_map")
    found = {"hectare_map": hectares}
    for asset in ("adjusted_map", "population_map", UNITS):
        found[asset] = making.input_of(hectares, asset)
    adjusted, predicted = found["adjusted_map"], found["population_map"]
    found[COUNTS] = making.input_of(adjusted, COUNTS)
    found["evaluation"] = making.input("evaluation")
    for asset in ("adjusted_map", "population_map"):
        of = making.store.made_from(found["evaluation"], asset)
        if of.version != found[asset].version:
            raise StoreError(
                "hectares and evaluation are of different maps",
                where=found["evaluation"].path,
                expected=f"{asset} version {found[asset].version}",
                found=of.version,
                remedy=f"materialise {found['evaluation'].address} and {hectares.address} again",
            )
    found["builtup_area"] = making.input_of(predicted, "builtup_area")
    for composites, sensor in zip(FILLED, SENSORS, strict=True):
        found[composites] = making.input_of(predicted, composites)
        for season in SEASONS:
            name = f"{sensor}_{season}"
            found[name] = making.input_of(found[composites], name)
    for entry in predicted.manifest()["inputs"]:
        if entry["asset"] == CHECKPOINTS:
            found[CHECKPOINTS] = making.input(
                CHECKPOINTS,
                country=entry["country"],
                year=entry["year"],
                version=entry["version"],
            )
    return found


def _rows(making: Making, evaluated: Version) -> "UnitRows":
    """What the warehouse has of the units, if it is of these very versions.

    Raises:
        StoreError: it has other rows, or none.
    """
    from popcorn_ml.publishing.unit_tables import UnitRows
    from popcorn_ml.warehouse.warehouse import Warehouse

    records = Records(making.store, evaluated.address, making.context.log)
    if not records.rows_held(evaluated):
        raise StoreError(
            f"the warehouse does not hold the rows of {evaluated.address}",
            where=making.store.warehouse,
            expected=f"those of version {evaluated.version}",
            remedy=f"materialise {evaluated.address} again",
        )
    tables = evaluated.manifest()["tables"]
    making.parameter(**{ROWS: {name: told["digest"] for name, told in tables.items()}})
    warehouse = Warehouse(making.store.warehouse)
    found = warehouse.rows_of(evaluated.address.asset, making.country, making.year, ["map_sums"])
    return UnitRows(found["map_sums"].to_pylist())


assets: list[dg.AssetsDefinition] = [publication]
