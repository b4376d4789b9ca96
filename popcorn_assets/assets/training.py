"""Training: a country-year's checkpoints.

`checkpoints` is a graph: a plan, one mapped step a member (parallel as the pool allows, re-executed
alone after a failure, from its last epoch), and a step that publishes all members as one version.
How a member is trained is popcorn_ml.training's business.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg

from popcorn_assets.assets.builtup import EXTRACTOR, GPU_POOL
from popcorn_assets.assets.census import POOL as WAREHOUSE_POOL
from popcorn_assets.assets.trained_from import (
    READ,
    CheckpointInputs,
    checkpoint_inputs,
    of_one_extractor,
)
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR, OF_COUNTRIES_TRAINED_ON
from popcorn_assets.promotion.soundness import WEIGHTS, finite_training
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import PICTURE, markdown_image
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.recipe import same_code
from popcorn_assets.wording import heading
from popcorn_ml.compute.locks import try_lock
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_bytes
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    OutOfFold,
    by_country,
    collected,
    collected_json,
)
from popcorn_ml.training.run import LOCK_FILE

GROUP = "training"
CODE = code_digest("model", "training")

TRAINED_FROM = (*READ, EXTRACTOR)
"""Assets that a training reads, and waits for."""
CHECKPOINTS = "checkpoints"
BY_COUNTRY = "scores by country, of units that members had not seen"


def _checkpoints_making(
    context: dg.OpExecutionContext, store: StoreResource, compute: ComputeResource
) -> tuple[Making, CheckpointInputs, Country]:
    """The materialisation of a country-year's checkpoints, all it depends on noted."""
    making = Making(context, store.open(), CHECKPOINTS, code_version=CODE)
    country = load_country(making.country)
    inputs = checkpoint_inputs(making, country)
    making.parameter(
        training=country.training.model_dump(mode="json", exclude={"countries"}),
        precision=compute.precision,
        **inputs.parameters(),
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
    extractor = of_one_extractor(making, inputs)
    first, *further = inputs.places()
    settings, work = country.training, making.work()
    for member, seed in enumerate(settings.seeds(), start=1):
        folder = work / f"member_{seed}"
        spec = TrainingSpec(
            s1=first.s1,
            s2=first.s2,
            builtup=first.builtup,
            units=first.units,
            counts=first.counts,
            place=first.code,
            further=tuple(further),
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


def _shown_by_country(unseen: Sequence[OutOfFold]) -> dict[str, Any]:
    """How the members do on each country's units, where they are of several."""
    named = any(unit.country for unit in unseen)
    return {BY_COUNTRY: [one.as_row() for one in by_country(unseen)]} if named else {}


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
        shown = {
            **plotted(rows),
            **_shown_by_country(unseen),
            "members": rows,
            "units predicted unseen": len(unseen),
        }
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


def _as_input(name: str) -> dg.AssetIn:
    """An asset that a training waits for; of every country that it has units of."""
    mapping = None if name == EXTRACTOR else OF_COUNTRIES_TRAINED_ON
    return dg.AssetIn(dagster_type=dg.Nothing, partition_mapping=mapping)


@dg.graph_asset(
    name=CHECKPOINTS,
    group_name=GROUP,
    partitions_def=COUNTRY_YEAR,
    kinds={"pytorch"},
    description="Occupancy networks trained on this country-year's composites and census counts "
    "(or those of the countries under `training.countries`), one a seed; with their held-out "
    "scores and loss curves.",
    ins={name: _as_input(name) for name in TRAINED_FROM},
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
