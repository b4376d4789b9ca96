"""Which checkpoints map a country-year: the deployed model, as an asset.

How a model comes into use, and where that is recorded, is `popcorn_assets.promotion`'s business.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from popcorn_assets.assets.extractors import Extractor, extractor_of
from popcorn_assets.assets.training import GROUP, WEIGHTS
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.candidates import candidates
from popcorn_assets.promotion.decide import Decision, decide
from popcorn_assets.promotion.entries import CHECKPOINTS
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE, FACT, digest_of, read_ledger
from popcorn_assets.promotion.trained_on import COUNTRIES, levels_of
from popcorn_assets.promotion.who import launched_by
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_assets.show import as_check_result, check_specs, markdown_table
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Version
from popcorn_ml.files import write_json

CODE = code_digest("model", "training")
PROMOTION = "promotion"


@dg.asset(
    config_schema=NOTHING,
    name=DEPLOYED,
    deps=[dg.AssetDep(CHECKPOINTS, partition_mapping=dg.AllPartitionMapping())],
    check_specs=check_specs(
        DEPLOYED, {PROMOTION: "The newest checkpoints that might map this country-year do."}
    ),
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    code_version=CODE,
)
def deployed_model(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Which checkpoints map this country-year, by a decision in the country's ledger.

    New checkpoints take over if they are no worse on held-out census units than those in use;
    otherwise those in use stay, and the check `promotion` says so.
    """
    making = Making(context, store.open(), DEPLOYED, code_version=CODE)
    decision = decide(making.store, making.country, making.year, who=launched_by(context.run))
    context.log.log("INFO" if decision.settled else "WARNING", decision.message)
    model = decision.model
    chosen = making.input(
        CHECKPOINTS, country=model.country, year=model.year, version=model.version
    )
    making.parameter(entry=decision.entry)
    making.judged_apart = {PROMOTION}
    manifest = chosen.manifest()
    parameters = manifest["parameters"]
    levels = levels_of(parameters, model.country)
    entry = read_ledger(making.store, making.country).find(decision.entry or "")
    assert entry is not None

    def make(folder: Path) -> Outcome:
        write_json(
            folder / DEPLOYED_FILE,
            {
                "country": model.country,
                "year": model.year,
                "version": model.version,
                "entry": entry.id,
                "members": [f"member_{seed}" for seed in manifest["facts"]["seeds"]],
                "pixel_area_m2": parameters["pixel_area_m2"],
                "provenance": parameters["provenance"],
                "level": parameters["level"],
                **({COUNTRIES: parameters[COUNTRIES]} if COUNTRIES in parameters else {}),
            },
        )
        return Outcome(
            {
                "model": title_of(model.country, model.year, model.version),
                "ledger entry": entry.id,
                "action": entry.action,
                "decided by": entry.who,
                "decided at": entry.when,
                "reason": entry.reason,
                "forced": entry.forced,
                "from another country": making.country not in levels,
                **({"trained on units of": ", ".join(levels)} if COUNTRIES in parameters else {}),
            },
            {FACT: {**entry.model_dump(mode="json"), "sha256": digest_of(entry)}},
        )

    result = making.publish(make)
    # What is asked now is not what the version was made from, so it is no part of its manifest.
    rows = candidates(making.store, making.country)
    return result._replace(
        metadata={
            **(result.metadata or {}),
            "decision": decision.message,
            "candidates": dg.MetadataValue.md(markdown_table(rows)),
        },
        check_results=[*result.check_results, _verdict(decision)],
    )


def _verdict(decision: Decision) -> dg.AssetCheckResult:
    """The check `promotion`: a warning where something is left to decide, never an error."""
    return as_check_result(
        {
            "name": PROMOTION,
            "passed": decision.settled,
            "severity": "warn",
            "message": decision.message,
            "rows": [],
            "metadata": {
                "model": str(decision.model),
                "candidate": str(decision.candidate or "none"),
                "ledger entry": str(decision.entry),
            },
        }
    )


def title_of(country: str, year: int, version: str) -> str:
    """A model's name as maps carry it."""
    return f"{country}|{year}, version {version}"


@dataclass(frozen=True)
class Deployed:
    """The deployed members.

    Attributes:
        title: country-year and version they were trained as.
        entry: the ledger's entry that put them in use.
        files: weights, one a member.
        pixel_area_m2: mean area of the pixels they were trained on.
        provenance: of the imagery they were trained on, by sensor.
        extractor: of the built-up score they were trained on; None where it is no longer known.
    """

    title: str
    entry: str
    files: list[Path]
    pixel_area_m2: float
    provenance: dict[str, dict[str, str]]
    extractor: Extractor | None

    def names(self) -> dict[str, str]:
        """What a map says of its model in its metadata."""
        return {"model": self.title, "ledger entry": self.entry}


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
        title_of(decision["country"], decision["year"], version.version),
        decision.get("entry", ""),  # models deployed before there were ledgers have none
        [version.file(f"{member}/{WEIGHTS}") for member in decision["members"]],
        decision["pixel_area_m2"],
        decision["provenance"],
        extractor_of(making.store, version),
    )


def model_names(made: Version) -> dict[str, str]:
    """The names of the model behind a version of population_map, read back from it."""
    shown = dict(made.manifest()["shown"])
    return {name: str(shown[name]) for name in ("model", "ledger entry") if name in shown}


def model_tags(names: dict[str, str]) -> dict[str, str]:
    """The names of a map's model as tags of its raster."""
    return {name.replace(" ", "_"): text for name, text in names.items()}


assets: list[dg.AssetsDefinition] = [deployed_model]
