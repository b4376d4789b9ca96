"""Which model maps a country-year, checkpoints or a student: the deployed model, as an asset.

How a model comes into use, and where that is recorded, is `popcorn_assets.promotion`'s business.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.extractors import Extractor, extractor_of
from popcorn_assets.assets.imagery import SENSOR_NAMES, provenance
from popcorn_assets.assets.training import GROUP, WEIGHTS
from popcorn_assets.countries.model import Kind
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.candidates import candidates
from popcorn_assets.promotion.decide import Decision, decide
from popcorn_assets.promotion.entries import CHECKPOINTS, MODELS, STUDENT, Model, deployed_as
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE, FACT, digest_of, read_ledger
from popcorn_assets.promotion.students import STUDENT_FILE, sensors_of
from popcorn_assets.promotion.trained_on import COUNTRIES, TAUGHT_BY, levels_of
from popcorn_assets.promotion.who import launched_by
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_assets.show import as_check_result, check_specs, markdown_table
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Version
from popcorn_ml.files import write_json
from popcorn_ml.sentinel import SENSORS

if TYPE_CHECKING:
    from popcorn_ml.imagery.checks import CheckResult

CODE = code_digest("model", "training")
PROMOTION = "promotion"


@dg.asset(
    config_schema=NOTHING,
    name=DEPLOYED,
    deps=[
        dg.AssetDep(asset, partition_mapping=dg.AllPartitionMapping())
        for asset in (CHECKPOINTS, STUDENT)
    ],
    check_specs=check_specs(
        DEPLOYED, {PROMOTION: "The newest model that might map this country-year does."}
    ),
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    code_version=CODE,
)
def deployed_model(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Which checkpoints, or which student, map this country-year, by a decision in the country's
    ledger.

    A new model takes over if it is no worse on held-out census units than the one in use; otherwise
    that stays, and the check `promotion` says so. Of which kind the new one is, the country's file
    says.
    """
    making = Making(context, store.open(), DEPLOYED, code_version=CODE)
    decision = decide(making.store, making.country, making.year, who=launched_by(context.run))
    context.log.log("INFO" if decision.settled else "WARNING", decision.message)
    model = decision.model
    chosen = making.input(
        MODELS[model.kind], country=model.country, year=model.year, version=model.version
    )
    making.parameter(entry=decision.entry)
    making.judged_apart = {PROMOTION}
    manifest = chosen.manifest()
    parameters = manifest["parameters"]
    levels = levels_of(parameters, model.country)
    units_of = list(levels) if COUNTRIES in parameters else parameters.get(TAUGHT_BY)
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
                **_of_its_kind(model, manifest),
                "pixel_area_m2": parameters["pixel_area_m2"],
                "provenance": parameters["provenance"],
                "level": parameters["level"],
                **(
                    {COUNTRIES: [{"code": c, "level": level} for c, level in levels.items()]}
                    if COUNTRIES in parameters
                    else {}
                ),
                **({TAUGHT_BY: parameters[TAUGHT_BY]} if TAUGHT_BY in parameters else {}),
            },
        )
        return Outcome(
            {
                "model": deployed_as(model.country, model.year, model.version, model.kind),
                "ledger entry": entry.id,
                "action": entry.action,
                "decided by": entry.who,
                "decided at": entry.when,
                "reason": entry.reason,
                "forced": entry.forced,
                "from another country": making.country not in levels,
                **({"trained on units of": ", ".join(units_of)} if units_of else {}),
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


def _of_its_kind(model: Model, manifest: dict[str, Any]) -> dict[str, Any]:
    """What maps with a model, a name a band of the map; its kind, where it is not checkpoints."""
    if model.kind == "student":
        return {"kind": model.kind, "members": [STUDENT]}
    return {"members": [f"member_{seed}" for seed in manifest["facts"]["seeds"]]}


@dataclass(frozen=True)
class Deployed:
    """The deployed model.

    Attributes:
        title: country-year and version it was trained as.
        entry: the ledger's entry that put it in use.
        files: weights, one a member; a student's alone.
        pixel_area_m2: mean area of the pixels it was trained on.
        provenance: of the imagery it was trained on, by sensor.
        extractor: of the built-up score it was trained on; None where it is no longer known.
        kind: checkpoints' members or a student.
        sensors: what a student looks at; members look at both.
    """

    title: str
    entry: str
    files: list[Path]
    pixel_area_m2: float
    provenance: dict[str, dict[str, str]]
    extractor: Extractor | None
    kind: Kind = "bag"
    sensors: str = "both"

    def as_parameters(self) -> dict[str, str]:
        """What a map's manifest says of the model's kind; nothing of checkpoints, as ever."""
        return {} if self.kind == "bag" else {"kind": self.kind, "sensors": self.sensors}

    def as_mapped(self) -> dict[str, Any]:
        """What a mapping's specification says of it beside the weights."""
        return {} if self.kind == "bag" else {"kind": self.kind}

    def names(self) -> dict[str, str]:
        """What a map says of its model in its metadata."""
        return {"model": self.title, "ledger entry": self.entry}


def deployed_members(making: Making) -> Deployed:
    """The model that maps this country-year; decision and model noted as inputs."""
    decision = json.loads(making.input(DEPLOYED).file(DEPLOYED_FILE).read_text("utf-8"))
    kind: Kind = decision.get("kind", "bag")
    version: Version = making.input(
        MODELS[kind],
        country=decision["country"],
        year=decision["year"],
        version=decision["version"],
    )
    return Deployed(
        deployed_as(decision["country"], decision["year"], version.version, kind),
        decision.get("entry", ""),  # models deployed before there were ledgers have none
        [version.file(STUDENT_FILE)]
        if kind == "student"
        else [version.file(f"{member}/{WEIGHTS}") for member in decision["members"]],
        decision["pixel_area_m2"],
        decision["provenance"],
        extractor_of(making.store, version),
        kind,
        sensors_of(version) if kind == "student" else "both",
    )


def same_quantities(making: Making, deployed: Deployed) -> "list[CheckResult]":
    """Whether the model meets the products that it was trained on; of a sensor that it does not
    look at nothing is asked."""
    from popcorn_ml.imagery.checks import CheckResult, backscatter_check

    trained, here = deployed.provenance, provenance(making)
    found = []
    for sensor in SENSORS:
        name, title = f"same_quantity_{sensor}", SENSOR_NAMES[sensor]
        if deployed.sensors in ("both", sensor):
            found.append(replace(backscatter_check(trained[sensor], here[sensor]), name=name))
        else:
            found.append(CheckResult(name, True, "warn", f"the model looks at no {title} images"))
    return found


def model_names(made: Version) -> dict[str, str]:
    """The names of the model behind a version of population_map, read back from it."""
    shown = dict(made.manifest()["shown"])
    return {name: str(shown[name]) for name in ("model", "ledger entry") if name in shown}


def model_tags(names: dict[str, str]) -> dict[str, str]:
    """The names of a map's model as tags of its raster."""
    return {name.replace(" ", "_"): text for name, text in names.items()}


assets: list[dg.AssetsDefinition] = [deployed_model]
