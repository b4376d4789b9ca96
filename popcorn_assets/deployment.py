"""Which checkpoints map a country-year: the deployed model."""

import json
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from popcorn_assets.country import load_country
from popcorn_assets.lineage import Making, Outcome, code_digest
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.resources import StoreResource
from popcorn_assets.store import Version
from popcorn_assets.training import CHECKPOINTS, GROUP, WEIGHTS
from popcorn_ml.files import write_json

CODE = code_digest("model", "training")
DEPLOYED = "deployed_model"
DEPLOYED_FILE = "deployed.json"


@dg.asset(
    name=DEPLOYED,
    deps=[dg.AssetDep(CHECKPOINTS, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    code_version=CODE,
)
def deployed_model(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Which checkpoints map this country-year: those that the country's file names, or its own."""
    making = Making(context, store.open(), DEPLOYED, code_version=CODE)
    choice = load_country(making.country).model
    trained_on = choice.country or making.country, choice.year or making.year
    chosen = making.input(CHECKPOINTS, country=trained_on[0], year=trained_on[1])
    manifest = chosen.manifest()

    def make(folder: Path) -> Outcome:
        decision = {
            "country": trained_on[0],
            "year": trained_on[1],
            "version": chosen.version,
            "members": [f"member_{seed}" for seed in manifest["facts"]["seeds"]],
            "pixel_area_m2": manifest["parameters"]["pixel_area_m2"],
            "provenance": manifest["parameters"]["provenance"],
            "level": manifest["parameters"]["level"],
        }
        write_json(folder / DEPLOYED_FILE, decision)
        title = f"{trained_on[0]}|{trained_on[1]}, version {chosen.version}"
        transferred = trained_on[0] != making.country
        return Outcome({"model": title, "from another country": transferred})

    return making.publish(make)


@dataclass(frozen=True)
class Deployed:
    """The deployed members.

    Attributes:
        title: country-year and version they were trained as.
        files: weights, one a member.
        pixel_area_m2: mean area of the pixels they were trained on.
        provenance: of the imagery they were trained on, by sensor.
    """

    title: str
    files: list[Path]
    pixel_area_m2: float
    provenance: dict[str, dict[str, str]]


def deployed_members(making: Making) -> Deployed:
    """The members that map this country-year; decision and checkpoints noted as inputs."""
    decision = json.loads(making.input(DEPLOYED).file(DEPLOYED_FILE).read_text("utf-8"))
    version: Version = making.input(
        CHECKPOINTS,
        country=decision["country"],
        year=decision["year"],
        version=decision["version"],
    )
    return Deployed(
        f"{decision['country']}|{decision['year']}, version {version.version}",
        [version.file(f"{member}/{WEIGHTS}") for member in decision["members"]],
        decision["pixel_area_m2"],
        decision["provenance"],
    )


assets: list[dg.AssetsDefinition] = [deployed_model]
