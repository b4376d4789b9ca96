"""Publication: what people outside open, made from the maps and all that is known of them.

What the files hold is popcorn_ml.publishing's business; here is which versions they are made from.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS, levels_of
from popcorn_assets.assets.change import CHANGE, change
from popcorn_assets.assets.evaluation import evaluation
from popcorn_assets.assets.imagery import FILLED
from popcorn_assets.assets.maps import adjusted_map, hectare_map, population_map
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.entries import MODELS
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs.home import MAPS_VARIABLE
from popcorn_assets.show import save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.recipe import ROWS
from popcorn_assets.store.records import Records
from popcorn_assets.store.versions import Address, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.sentinel import SEASONS, SENSORS

if TYPE_CHECKING:
    from popcorn_ml.publishing.origin import Origin
    from popcorn_ml.publishing.unit_tables import UnitRows

GROUP = "publication"
PUBLICATION = "publication"
CODE = code_digest("publishing", "intervals", "mapping", "census")


def _served() -> dict[str, dg.MetadataValue]:
    """Where the published maps are served now; an earlier run's address may be nobody's."""
    address = os.environ.get(MAPS_VARIABLE)
    return {"web map": dg.MetadataValue.url(address)} if address else {}


@dg.asset(
    config_schema=NOTHING,
    name=PUBLICATION,
    metadata=_served(),
    deps=[population_map, adjusted_map, hectare_map, evaluation, change],
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

    result = making.publish(make)
    return result._replace(metadata={**(result.metadata or {}), **_where_to_look(making)})


def _where_to_look(making: Making) -> dict[str, dg.MetadataValue]:
    """The report, of the version that is current now."""
    from popcorn_ml.publishing.names import Names

    version = making.store.latest(making.address)
    report = version.path / Names(making.country, making.year).report
    return {"report": dg.MetadataValue.path(str(report))}


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
    told: Mapping[str, Any] = {"why": "no change of this version of the map has been worked out"}
    if CHANGE in versions:
        told = versions[CHANGE].manifest()["facts"]
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
        rows=_rows(making, versions),
        terms=Terms(**country.publication.model_dump()),
        change_from=told.get("from_year"),
        why_no_change=str(told.get("why") or ""),
        simulated=bool(country.evaluation.truth),
        threads=threads,
    )


def _versions(making: Making) -> dict[str, Version]:
    """Asset -> version, of everything that is told of."""
    hectares = making.input("hectare_map")
    found = {"hectare_map": hectares}
    for asset in ("adjusted_map", "population_map"):
        found[asset] = making.input_of(hectares, asset)
    adjusted, predicted = found["adjusted_map"], found["population_map"]
    for asset in (UNITS, COUNTS):
        found[asset] = making.input_of(adjusted, asset)
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
    changed = making.store.find(Address(CHANGE, making.country, making.year))
    if changed is not None and _is_of(changed, hectares):
        found[CHANGE] = making.input(CHANGE)
    found["builtup_area"] = making.input_of(predicted, "builtup_area")
    for composites, sensor in zip(FILLED, SENSORS, strict=True):
        found[composites] = making.input_of(predicted, composites)
        for season in SEASONS:
            name = f"{sensor}_{season}"
            found[name] = making.input_of(found[composites], name)
    for entry in predicted.manifest()["inputs"]:
        if entry["asset"] in MODELS.values():
            which = {key: entry[key] for key in ("country", "year", "version")}
            with suppress(StoreError):  # taken away since; maps outlive their models
                found[entry["asset"]] = making.input(entry["asset"], **which)
    return found


def _is_of(made: Version, used: Version) -> bool:
    """Whether a version was made from another one."""
    address = used.address
    entry = (address.asset, address.country, address.year, used.version)
    inputs = made.manifest()["inputs"]
    return entry in [(e["asset"], e["country"], e["year"], e["version"]) for e in inputs]


ROWS_OF = {"map_sums": "evaluation", "map_intervals": "hectare_map", "map_change": CHANGE}
"""Tables of the warehouse that are told of, and whose rows they are."""


def _rows(making: Making, versions: Mapping[str, Version]) -> "UnitRows":
    """What the warehouse has of the units, if it is of these very versions.

    Raises:
        StoreError: it has other rows, or none.
    """
    from popcorn_ml.publishing.unit_tables import UnitRows
    from popcorn_ml.warehouse.warehouse import Warehouse

    warehouse = Warehouse(making.store.warehouse)
    found: dict[str, list[dict[str, Any]]] = {}
    digests: dict[str, str] = {}
    for table, asset in ROWS_OF.items():
        version = versions.get(asset)
        told = version.manifest()["tables"].get(table) if version else None
        if version is None or told is None:  # made before there were such rows, or there are none
            found[table] = []
            continue
        records = Records(making.store, version.address, making.context.log)
        if not records.rows_held(version):
            raise StoreError(
                f"the warehouse does not hold the rows of {version.address}",
                where=making.store.warehouse,
                expected=f"those of version {version.version}",
                remedy=f"materialise {version.address} again",
            )
        rows = warehouse.rows_of(asset, making.country, making.year, [table])
        found[table] = rows[table].to_pylist()
        digests[table] = told["digest"]
    making.parameter(**{ROWS: digests})
    return UnitRows(found["map_sums"], found["map_intervals"], found["map_change"])


assets: list[dg.AssetsDefinition] = [publication]
