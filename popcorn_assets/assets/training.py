"""Training: a country-year's checkpoints.

`checkpoints` is a graph: a plan, one mapped step a member (parallel as the pool allows, re-executed
alone after a failure, from its last epoch), and a step that publishes all members as one version.
How a member is trained is popcorn_ml.training's business.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dagster as dg

from popcorn_assets.assets.builtup import (
    BUILTUP,
    EXTRACTOR,
    GPU_POOL,
    builtup_of_composites,
    extractor_file,
)
from popcorn_assets.assets.census import POOL as WAREHOUSE_POOL
from popcorn_assets.assets.census import counts_file, units_raster
from popcorn_assets.assets.extractors import UNKNOWN, Extractor, extractor_of
from popcorn_assets.assets.imagery import composites_by_season, provenance
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.soundness import WEIGHTS, finite_training
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import PICTURE, markdown_image
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.recipe import same_code
from popcorn_assets.store.versions import Version
from popcorn_assets.wording import heading
from popcorn_ml.compute.locks import try_lock
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_bytes
from popcorn_ml.sentinel import Season
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, collected, collected_json
from popcorn_ml.training.run import LOCK_FILE

GROUP = "training"
CODE = code_digest("model", "training")

TRAINED_FROM = (
    "s1_composites",
    "s2_composites",
    "builtup_area",
    "census_units",
    "census_counts",
    EXTRACTOR,
)
"""Assets that a training reads, and waits for."""
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class CheckpointInputs:
    """What a country-year's members are trained from, as files."""

    composites: dict[Season, tuple[Path, Path]]
    score: Version
    units: Path
    counts: Path
    extractor: Path


def _checkpoints_making(
    context: dg.OpExecutionContext, store: StoreResource, compute: ComputeResource
) -> tuple[Making, CheckpointInputs, Country]:
    """The materialisation of a country-year's checkpoints, all it depends on noted."""
    making = Making(context, store.open(), CHECKPOINTS, code_version=CODE)
    country = load_country(making.country)
    level = country.census.train_level
    inputs = CheckpointInputs(
        composites=composites_by_season(making),
        score=builtup_of_composites(making),
        units=units_raster(making, level),
        counts=counts_file(making, level),
        extractor=extractor_file(making, country),
    )
    making.parameter(
        training=country.training.model_dump(mode="json"),
        level=level,
        precision=compute.precision,
        pixel_area_m2=making.grid(country).pixel_area_m2,
        provenance=provenance(making),
    )
    return making, inputs, country


@dg.op(
    config_schema=NOTHING,
    ins={name: dg.In(dg.Nothing) for name in TRAINED_FROM},
    out=dg.DynamicOut(dict),
)
def plan_members(
    context: dg.OpExecutionContext, store: StoreResource, compute: ComputeResource
) -> Iterator[dg.DynamicOutput[dict]]:
    """One training specification a member; none where the checkpoints are current."""
    from popcorn_ml.training.spec import Precision, TrainingSpec

    making, inputs, country = _checkpoints_making(context, store, compute)
    if making.current() is not None:
        context.log.info("the checkpoints are current: no member is trained")
        return
    extractor = _of_one_extractor(making, inputs)
    settings, work = country.training, making.work()
    for member, seed in enumerate(settings.seeds(), start=1):
        folder = work / f"member_{seed}"
        spec = TrainingSpec(
            s1={season: str(s1) for season, (s1, _) in inputs.composites.items()},
            s2={season: str(s2) for season, (_, s2) in inputs.composites.items()},
            builtup=str(inputs.score.file(BUILTUP)),
            units=str(inputs.units),
            counts=str(inputs.counts),
            extractor=str(inputs.extractor),
            out=str(folder / "out"),
            work=str(folder / "state"),
            device=compute.device,
            precision=cast(Precision, compute.precision),
            threads=compute.thread_count(),
            about={"country": making.country, "year": making.year},
            **settings.of_member(member),
        )
        yield dg.DynamicOutput(
            {
                "spec": json.loads(spec.to_json()),
                "noted": making.noted(),
                "extractor": extractor.as_fact(),
            },
            f"member_{seed}",
        )


def _of_one_extractor(making: Making, inputs: CheckpointInputs) -> Extractor:
    """The extractor of the score, which is the one that training begins from.

    Raises:
        StoreError: the score was made with another extractor, or it is not known with which.
    """
    score, begun = extractor_of(making.store, inputs.score), Extractor.of_file(inputs.extractor)
    if score is None or score.fingerprint != begun.fingerprint:
        raise StoreError(
            "the built-up score was made with another extractor than training would begin from",
            where=inputs.score.path,
            expected=f"a score of the extractor {begun}, which the country's file names",
            found=str(score or UNKNOWN),
            remedy=f"materialise {inputs.score.address} again, then train",
        )
    return score


@dg.op(pool=GPU_POOL, config_schema=NOTHING)
def train_member(
    context: dg.OpExecutionContext, compute: ComputeResource, plan: dict
) -> dg.Output[dict]:
    """Train one member, or take it up from its last finished epoch.

    Raises:
        StoreError: other code planned it: its half-done work is that code's.
    """
    from popcorn_ml.training.spec import TrainingSpec

    same_code(plan["noted"], CODE)
    spec = TrainingSpec.from_json(json.dumps(plan["spec"]))
    trained = launch.train_member(context, compute, spec)
    result = {
        "member": spec.member,
        "seed": spec.seed,
        "best epoch": trained["best_epoch"],
        "epochs": trained["epochs"],
        "units trained on": trained["trained"],
        "units held out": trained["held_out"],
        "units left out": len(trained["left_out"]),
        **trained["metrics"],
    }
    return dg.Output(
        {**plan, "result": result},
        metadata={
            "loss": dg.MetadataValue.md(markdown_image(Path(trained["figure"]).read_bytes())),
            **result,
            "taken up after epoch": trained["resumed_after"],
            "seconds": trained["seconds"],
        },
    )


PLOTTED = ("held_out_loss", "held_out_log_l1", "held_out_mae_people", "held_out_total_ratio")


def plotted(members: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the members of what was held out: Dagster plots them over the partitions."""
    found = {}
    for name in PLOTTED:
        values = [float(one[name]) for one in members if isinstance(one.get(name), int | float)]
        if values and all(map(math.isfinite, values)):
            found[f"{heading(name)}, mean of members"] = sum(values) / len(values)
    return found


def copy_member(trained: Path, target: Path) -> None:
    """Copy a trained model's files, without the drafts that a killed step has left beside them."""
    shutil.copytree(trained, target, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)


@dg.op(pool=WAREHOUSE_POOL, config_schema=NOTHING)
def collect_members(
    context: dg.OpExecutionContext,
    store: StoreResource,
    compute: ComputeResource,
    members: list,
) -> dg.Output[dict]:
    """Publish all members as one version."""
    making, _, _ = _checkpoints_making(context, store, compute)
    if members:
        making.restore(members[0]["noted"])
    elif making.current() is None:
        raise StoreError(
            "the inputs of the checkpoints changed between planning and publishing",
            where=making.store.folder(making.address),
            remedy="run this partition again",
        )

    def make(folder: Path) -> Outcome:
        rows = []
        for member in members:
            out = Path(member["spec"]["out"])
            if not (out / WEIGHTS).is_file():
                raise StoreError(
                    "a trained member is no longer where its step left it",
                    where=out,
                    found="nothing: another run of this partition has published meanwhile",
                    remedy="see the latest checkpoints, or run this partition again",
                )
            name = f"member_{member['spec']['seed']}"
            copy_member(out, folder / name)
            rows.append(member["result"])
        first = Path(members[0]["spec"]["out"]) / "loss.png"
        shutil.copyfile(first, folder / PICTURE)
        seeds = [member["spec"]["seed"] for member in members]
        unseen = collected({str(seed): folder / f"member_{seed}" for seed in seeds})
        write_bytes(folder / OUT_OF_FOLD_FILE, collected_json(unseen))
        # In the manifest, so that nothing is made from them and no promotion overlooks it.
        verdict = finite_training(folder, [f"member_{seed}" for seed in seeds])
        facts = {"seeds": seeds, **members[0]["extractor"]}
        shown = {**plotted(rows), "members": rows, "units predicted unseen": len(unseen)}
        tables = {"out_of_fold": [unit.as_row() for unit in unseen]}
        return Outcome(shown, facts, checks=[verdict], tables=tables)

    version = making.publish_version(make)
    _clear(making.work())
    return dg.Output(
        {"version": version.version},
        metadata=making.metadata(version),
        data_version=dg.DataVersion(version.version),
    )


def _clear(work: Path) -> None:
    """Remove a finished training's half-done work, unless another run is at it again."""
    locks = [try_lock(path) for path in work.glob(f"*/state/{LOCK_FILE}")]
    if None not in locks:
        shutil.rmtree(work, ignore_errors=True)
    for lock in locks:
        if lock is not None:
            os.close(lock)


@dg.graph_asset(
    name=CHECKPOINTS,
    group_name=GROUP,
    partitions_def=COUNTRY_YEAR,
    kinds={"pytorch"},
    description="Occupancy networks trained on this country-year's composites and census counts, "
    "one a seed; with their held-out scores and loss curves.",
    ins={name: dg.AssetIn(dagster_type=dg.Nothing) for name in TRAINED_FROM},
)
def checkpoints(
    s1_composites, s2_composites, builtup_area, census_units, census_counts, builtup_extractor
):
    plans = plan_members(
        s1_composites=s1_composites,
        s2_composites=s2_composites,
        builtup_area=builtup_area,
        census_units=census_units,
        census_counts=census_counts,
        builtup_extractor=builtup_extractor,
    )
    return collect_members(plans.map(train_member).collect())


assets: list[dg.AssetsDefinition] = [checkpoints]
