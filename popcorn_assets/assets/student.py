"""The student: one small network that learns from what the members of a country-year say.

A model as checkpoints are: published once, put in use by a decision (`deployed_model`), and mapped
with by `population_map`. What its teachers say is mapped here, from the checkpoints and into this
asset's own half-done work: so a student waits for no map, and a map for no student but the one in
use. How it is trained is popcorn_ml.student's business.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.assets.builtup import (
    BUILTUP,
    EXTRACTOR,
    GPU_POOL,
    builtup_of_composites,
    extractor_file,
    looked_at,
    named_engine,
    part_of_work,
    place_tags,
    score_seen,
    tile_work,
)
from popcorn_assets.assets.census import counts_file, units_raster
from popcorn_assets.assets.extractors import extractor_of
from popcorn_assets.assets.imagery import composites_by_season, looks_at_text, provenance
from popcorn_assets.assets.maps import MEMBERS
from popcorn_assets.assets.student_checks import CHECKS, Judged, judged
from popcorn_assets.assets.training import CHECKPOINTS, GROUP, TRAINED_FROM, copy_member
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.entries import STUDENT
from popcorn_assets.promotion.soundness import WEIGHTS, member_names
from popcorn_assets.promotion.students import is_trained, read_told
from popcorn_assets.promotion.trained_on import COUNTRIES, TAUGHT_BY, units_in
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import PICTURE, as_check_result, check_specs
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Version
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.spec import Composites
from popcorn_ml.sentinel import Season
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold, read_collected

CODE = code_digest("model", "training", "mapping", "student")

AS_THE_FILE_SAYS = ("country_year", "train")
"""Jobs that make all of a country-year, or all that is trained: a student only where the country's
file says `kind: student`. Whatever else names this asset asks for one."""

TOLD = "student_out_of_fold"
"""Table of the warehouse: what students of the folds say of units that they never saw."""

SAYS = "student.json"
"""In a version without a student: why there is none."""


@dataclass(frozen=True)
class Inputs:
    """What a student is trained from, as files; all of it noted."""

    checkpoints: Version
    countries: list[str]  # that the members were trained on, where these are several
    composites: Mapping[Season, Composites]
    score: Version
    units: Path
    counts: Path
    extractor: Path
    grid: Grid
    sensors: str

    def seen(self) -> dict[Season, Composites]:
        """The composites of the sensors that the student looks at."""
        return looked_at(self.composites, self.sensors)

    def members(self) -> list[Path]:
        """The teachers' weights."""
        names = member_names(self.checkpoints)
        return [self.checkpoints.file(f"{name}/{WEIGHTS}") for name in names]

    def told_by_members(self, country: str) -> list[OutOfFold]:
        """The country's units as members told them that had not seen them."""
        told = read_collected(self.checkpoints.path / OUT_OF_FOLD_FILE)
        return units_in(self.checkpoints.manifest()["parameters"], told, country)


DESCRIPTION = """One small network that learnt from the members' maps of this country-year, adjusted
to the census; with what students that never saw them say of its units.

Trained where the country's file says `model: {kind: student}`, or when it is asked for by itself
(job `distil`); otherwise this says that none was asked for."""


@dg.multi_asset(
    name=STUDENT,
    specs=[
        dg.AssetSpec(
            STUDENT,
            deps=[CHECKPOINTS, *TRAINED_FROM],
            description=DESCRIPTION,
            group_name=GROUP,
            kinds={"pytorch"},
            code_version=CODE,
        )
    ],
    check_specs=check_specs(STUDENT, CHECKS),
    can_subset=True,  # only so may its checks be left unsaid: of no student nothing is judged
    config_schema=NOTHING,
    partitions_def=COUNTRY_YEAR,
    pool=GPU_POOL,
)
def student(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    making = Making(context, store.open(), STUDENT, code_version=CODE)
    country = load_country(making.country)
    if not context.selected_asset_keys:
        yield from _judged_before(making, {key.name for key in context.selected_asset_check_keys})
    elif country.model.kind != "student" and context.run.job_name in AS_THE_FILE_SAYS:
        yield _none_asked_for(making)
    else:
        yield _made(making, compute, country)


def _judged_before(making: Making, asked: set[str]) -> Iterator[dg.AssetCheckResult]:
    """Verdicts of what was made last, where somebody asks for them alone: its manifest has them."""
    for check in making.store.newest(making.address).manifest()["checks"]:
        if check["name"] in asked:
            yield as_check_result(check)


def _made(making: Making, compute: ComputeResource, country: Country) -> dg.MaterializeResult:
    """A student, trained, or the one that is there and current."""
    inputs = _inputs(making, country)
    making.parameter(
        student=country.student.model_dump(mode="json"),
        sensors=inputs.sensors,
        **({TAUGHT_BY: inputs.countries} if inputs.countries else {}),
        level=country.census.train_level,
        grid=inputs.grid.as_dict(),
        pixel_area_m2=inputs.grid.pixel_area_m2,
        provenance=provenance(making),
        precision=compute.precision,
        leave_out=country.mapping.leave_out,
        **named_engine(compute),
    )
    extractor = extractor_of(making.store, inputs.score)

    def make(folder: Path) -> Outcome:
        work = making.lone_work()
        teacher = _teachers_map(making, compute, country, inputs, work / "teacher")
        one = inputs.extractor if inputs.sensors != "both" else None
        score = score_seen(making, compute, country, inputs.score, inputs.seen(), one)
        _train(making, compute, country, inputs, teacher, score, work)
        copy_member(work / "out", folder)
        shutil.copyfile(folder / "loss.png", folder / PICTURE)
        found = judged(folder, inputs.told_by_members(making.country), inputs.counts)
        return Outcome(
            _shown(inputs, found),
            extractor.as_fact() if extractor else {},
            checks=found.checks,
            tables={TOLD: [unit.as_row() for unit in read_told(folder)]},
        )

    return making.publish(make)


def _none_asked_for(making: Making) -> dg.MaterializeResult:
    """Say so; a student that was trained all the same stays what it is."""
    found = making.store.find(making.address)
    if found is not None and is_trained(found.path):
        making.context.log.info(f"{making.address} stays as it is: version {found.version}")
        return dg.MaterializeResult(
            metadata=making.metadata(found), data_version=dg.DataVersion(found.version)
        )
    why = (
        "the country's file says model: {kind: bag}; for a student write kind: student, or ask for "
        f"one: popcorn run {making.country} {making.year} --job distil"
    )
    making.parameter(asked_for=False)
    making.judged_apart = set(CHECKS)  # there is nothing that they could judge

    def make(folder: Path) -> Outcome:
        write_json(folder / SAYS, {"trained": False, "why": why})
        return Outcome({"not trained": why}, {"trained": False})

    return making.publish(make)


def _inputs(making: Making, country: Country) -> Inputs:
    """Checkpoints and what they were trained from, which is what is current.

    Raises:
        StoreError: the checkpoints were trained from something else, or on images of another
            kind, or there are none.
    """
    level = country.census.train_level
    checkpoints = making.input(CHECKPOINTS)
    parameters = checkpoints.manifest()["parameters"]
    composites, score = composites_by_season(making), builtup_of_composites(making)
    inputs = Inputs(
        checkpoints=checkpoints,
        countries=[one["code"] for one in parameters.get(COUNTRIES) or ()],
        composites=dict(composites),
        score=score,
        units=units_raster(making, level),
        counts=counts_file(making, level),
        extractor=extractor_file(making, country),
        grid=making.grid(country),
        sensors=country.model.sensors,
    )
    # Its own: of other countries that the members were trained on, a student reads nothing.
    noted = {(one["asset"], one["country"]): one["version"] for one in making.inputs}
    for entry in checkpoints.manifest()["inputs"]:
        asset, current = entry["asset"], noted.get((entry["asset"], entry["country"]))
        if asset == EXTRACTOR or current in (None, entry["version"]):
            continue
        raise StoreError(
            "a student's teachers were trained from other inputs than the current ones",
            where=checkpoints.path,
            expected=f"{asset} version {current}",
            found=entry["version"],
            remedy=f"materialise {checkpoints.address} again (job train), then the student",
        )
    if inputs.countries:
        _require_their_kind(making, checkpoints, parameters["provenance"])
    return inputs


def _require_their_kind(
    making: Making, checkpoints: Version, trained: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse teachers that were trained elsewhere on images of another kind than here.

    Maps by them say so in a check; maps by their student could not any more.

    Raises:
        StoreError: backscatter or reflectance are of another quantity.
    """
    from popcorn_ml.imagery.checks import backscatter_check

    for sensor, here in provenance(making).items():
        found = backscatter_check(trained[sensor], here)
        if not found.passed:
            raise StoreError(
                "a student's teachers were trained on images of another kind than this country's",
                where=checkpoints.path,
                found=f"{sensor}: {found.message}",
                remedy=f"give {making.country} and the countries it is trained on the same source "
                "under `imagery`, then job prepare, train and distil",
            )


def _teachers_map(
    making: Making, compute: ComputeResource, country: Country, inputs: Inputs, folder: Path
) -> Path:
    """The members' maps of the images that they were trained on, as `population_map` makes them."""
    from popcorn_ml.mapping.predict import MappingSpec

    with part_of_work(folder) as (out, done):
        if done:
            return out
        making.context.log.info("mapping what the members say of this country-year")
        launch.map_population(
            making.context,
            compute,
            MappingSpec(
                composites=inputs.composites,
                builtup=inputs.score.file(BUILTUP),
                members=inputs.members(),
                grid=inputs.grid,
                out=out,
                precision=compute.precision,
                **tile_work(country, compute),
                trained_pixel_m2=inputs.checkpoints.manifest()["parameters"]["pixel_area_m2"],
                leave_out=country.mapping.leave_out,
                tags=place_tags(making),
            ),
            progress=making.progress("tiles of the members' map"),
        )
    return out


def _train(
    making: Making,
    compute: ComputeResource,
    country: Country,
    inputs: Inputs,
    teacher: Path,
    score: Path,
    work: Path,
) -> None:
    from popcorn_ml.student.spec import StudentSpec

    composites: dict[str, dict[str, str | None]] = {
        season: {sensor: None if path is None else str(path)
                 for sensor, path in zip(("s1", "s2"), pair, strict=True)}
        for season, pair in inputs.seen().items()
    }  # fmt: skip
    spec = StudentSpec(
        composites=composites,
        builtup=str(score),
        units=str(inputs.units),
        counts=str(inputs.counts),
        extractor=str(inputs.extractor),
        members=[str(path) for path in inputs.members()],
        teacher=str(teacher / MEMBERS),
        teacher_builtup=str(teacher / BUILTUP),
        out=str(work / "out"),
        work=str(work / "state"),
        sensors=country.model.sensors,
        place=making.country if inputs.countries else "",
        device=compute.device,
        threads=compute.thread_count(),
        about={"country": making.country, "year": making.year},
        **country.student.model_dump(),
    )
    launch.train_student(making.context, compute, spec, making.progress("steps"))


def _shown(inputs: Inputs, found: Judged) -> dict[str, Any]:
    """What an operator sees: both models on the units that neither saw, and what it looks at."""
    numbers = {
        f"{title}, {row['model']}": float(row[name])
        for row in found.scores
        for name, title in (("r2", "R2"), ("mae", "MAE, people"))
        if row.get(name) is not None
    }
    return {
        **numbers,
        "looks at": looks_at_text(inputs.sensors),
        "taught by": f"{len(inputs.members())} members, version {inputs.checkpoints.version}",
        **({"trained on units of": ", ".join(inputs.countries)} if inputs.countries else {}),
        "units that neither saw": found.scores,
    }


assets: list[dg.AssetsDefinition] = [student]
