"""How well a model does on simulated countries of two families, and on those nobody has looked at.

    python -m benchmarks.accuracy --folder FOLDER [--family second] [--seeds 101 401]
        [--model bag student] [--sensors both s2] [--census-error counts=5,borders=3]
        [--set epochs=30] [--set student.steps=300] [--run NAME] [--threads 2] [--maps-only]
        [--json]

For each seed: writes the country's scenes and census, makes composites and built-up area, trains
all members with the settings of `countries/demo.yaml`, maps, adjusts to the census and evaluates
against the truth, 2020 only, with the functions that the assets call and without Dagster; students
that are asked for learn from the members and are measured in the same way. The truth is opened by
the evaluation alone, last. Printed are a line a seed, the mean and the worst of each family, errors
by kind of settlement and by density, and seconds. Without `--seeds` it is those that settings are
chosen on, of both families. `docs/demo.md` describes the countries; a folder that is given again is
taken up where it stopped.

Seeds for judging need `--judge "why"`; each such run is added to `benchmarks/judged.json`.

Bound: the adjusted map's RMSE per hectare is at most 0.65 of built-up disaggregation's, and R2 of
the map without adjustment is above that of built-up disaggregation with it. Exit status 1 where a
seed of an exact census misses it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy_table import print_table
from benchmarks.breakdown import breakdown
from benchmarks.judging import CHOOSING, Look, allow, family_of_seed
from benchmarks.places import (
    EXACT,
    SECONDS,
    YEAR,
    Place,
    Seconds,
    place_of,
    prepare,
    prepare_timed,
)
from benchmarks.students import PREFIX, StudentOf, settings_of_student
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.assets.unseen import Honest, saw
from popcorn_assets.countries.training import TrainingSettings
from popcorn_assets.country import load_country
from popcorn_ml.errors import ConfigError, PopcornError
from popcorn_ml.evaluation.report import Evaluation, evaluate
from popcorn_ml.evaluation.without_truth import score_without_truth, unseen_units
from popcorn_ml.files import write_json
from popcorn_ml.mapping.dasymetric import adjust_map
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.simulate.family import FAMILIES
from popcorn_ml.simulate.spec import CensusError
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.spec import TrainingSpec

__all__ = ["YEAR", "Place", "asked", "judge", "look_at", "prepare", "seeds_parser", "train"]

RATIO_BOUND = 0.65
RESULT = "result.json"
ERRORS = {"counts": "counts", "borders": "borders_px", "older": "years_older"}


def settings_of(place: Place) -> tuple[TrainingSettings, dict[str, Any]]:
    """The country file's settings with what was asked for; and what only a member's spec knows.

    Raises:
        ConfigError: a name that neither knows.
    """
    known = TrainingSettings.model_fields
    spec = {each.name for each in dataclasses.fields(TrainingSpec)}
    own = {k: v for k, v in place.overrides.items() if not k.startswith(PREFIX)}
    for name in own:
        if name not in known and name not in spec:
            raise ConfigError(
                "no such setting of the training",
                where="--set",
                expected=", ".join(sorted(known)),
                found=name,
            )
    given = {k: v for k, v in own.items() if k in known}
    settings = TrainingSettings.model_validate(place.country.training.model_dump() | given)
    return settings, {k: v for k, v in own.items() if k not in known}


def train(place: Place) -> list[Path]:
    """The weights of every member."""
    settings, more = settings_of(place)
    weights, pairs = [], place.composites()
    for number, seed in enumerate(settings.seeds(), start=1):
        folder = place.work / f"member_{seed}"
        told = {"device": "cpu", "threads": place.threads, **settings.of_member(number), **more}
        spec = TrainingSpec(
            s1={season: str(pair[0]) for season, pair in pairs.items()},
            s2={season: str(pair[1]) for season, pair in pairs.items()},
            builtup=str(place.builtup),
            units=str(place.units(place.level)),
            counts=str(place.counts(place.level)),
            extractor=str(DEMO_EXTRACTOR),
            out=str(folder / "out"),
            work=str(folder / "work"),
            **told,
        )
        weights.append(train_member(spec).weights)
    return weights


def trained(place: Place) -> bool:
    """Whether all members have been trained before."""
    seeds = settings_of(place)[0].seeds()
    return all((place.work / f"member_{seed}" / "out" / "card.json").exists() for seed in seeds)


def map_place(place: Place, members: list[Path]) -> Path:
    """The map by the members, and the map adjusted to the census; their folder."""
    out = place.work / "map"
    map_population(
        MappingSpec(
            composites=place.composites(),
            builtup=place.builtup,
            members=members,
            grid=place.country.pixel_grid(),
            out=out,
            tile_px=place.country.mapping.tile_px,
            device="cpu",
            threads=place.threads,
        )
    )
    return out


def judge(place: Place, members: list[Path]) -> dict[str, Any]:
    """Map, adjust, and open the truth."""
    return score(place, members, map_place(place, members))


def score(place: Place, members: list[Path], out: Path) -> dict[str, Any]:
    """Adjust the map in `out` to the census, and open the truth.

    Args:
        place: the place.
        members: of the bag whose map it is, for what is told without the truth; else none.
        out: the map's folder.
    """
    grid, people = place.country.pixel_grid(), place.people(place.level)
    adjust_map(
        out / "population.tif",
        out / "population_members.tif",
        out / "builtup_score.tif",
        place.units(place.level),
        people,
        grid,
        out / "adjusted",
    )
    found = evaluate(
        grid=grid,
        population=out / "population.tif",
        adjusted=out / "adjusted" / "population.tif",
        builtup=place.yardstick,
        units=place.units(place.level),
        people=people,
        truth=place.truth,
        fine_units=place.units("fine"),
        fine_people=place.people("fine"),
        threads=place.threads,
    )
    told = estimates(place, members, out, found) if members else {}
    by = {name: scores["hectare"] for name, scores in found.metrics.items()}
    return {
        "seed": place.seed,
        "ratio": by["adjusted"]["rmse"] / by["builtup"]["rmse"],
        "adjusted_rmse": by["adjusted"]["rmse"],
        "builtup_rmse": by["builtup"]["rmse"],
        "map_r2": by["map"]["r2"],
        "builtup_r2": by["builtup"]["r2"],
        "adjusted_r2": by["adjusted"]["r2"],
        "total": found.totals["map"] / found.totals["true"] - 1,
        **told,
    }


def estimates(place: Place, members: list[Path], out: Path, found: Evaluation) -> dict[str, float]:
    """What is told without any truth over what it is on the finer level, less 1: 0 were exact.

    Errors as shares of a unit's mean people: of the map, by units that members never saw; of the
    adjusted map, within joined units. Empty where nothing was held out.
    """
    seen = [json.loads((one.parent / "units.json").read_text())["trained"] for one in members]
    unseen = unseen_units(
        grid=place.country.pixel_grid(),
        population=out / "population.tif",
        members=out / "population_members.tif",
        builtup=out / "builtup_score.tif",
        units=place.units(place.level),
        people=place.people(place.level),
        saw=saw([set(ids) for ids in seen], place.units(place.level), len(members)),
        threads=place.threads,
    )
    honest = Honest(unseen, score_without_truth(unseen))
    honest.beside(found, place.people("fine"))
    finer = honest.estimated()
    if not finer:
        return {}
    told = {"map": honest.scores.out_of_fold, "adjusted": finer["estimated"]["adjusted"]}
    return {
        f"{product}_{share}_estimate": told[product][share] / finer["real"][product][share] - 1
        for product in told
        for share in ("mae_share", "rmse_share")
    }


def measure(
    place: Place, models: Sequence[str], sensors: Sequence[str], unseen: bool = True
) -> list[dict[str, Any]]:
    """One place from its scenes to its scores, a row a model.

    Args:
        place: the place.
        models: of "bag" and "student".
        sensors: of the students: "both", "s2", "s1".
        unseen: whether students for units unseen are trained as well.
    """
    taken = prepare_timed(place).taken
    place.work.mkdir(parents=True, exist_ok=True)
    seconds = Seconds(place.work / SECONDS, taken)
    members = seconds.of("train", lambda: train(place), trained(place))
    out = seconds.of("map", lambda: map_place(place, members))
    rows = []
    if "bag" in models:
        rows.append(row_of(place, "bag", members, out, place.work, seconds.taken))
    for student in (StudentOf(place, members, each, unseen) for each in sensors):
        if "student" not in models:
            break
        student.folder.mkdir(parents=True, exist_ok=True)
        own = Seconds(student.folder / SECONDS, taken)
        weights = own.of("train", student.train, student.done)
        out = own.of("map", lambda s=student, w=weights: s.map(w))
        rows.append(row_of(place, student.name, [], out, student.folder, own.taken))
    return rows


def row_of(
    place: Place,
    model: str,
    members: list[Path],
    out: Path,
    folder: Path,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Scores of the map in `out`, kept in `folder`."""
    found = score(place, members, out) | breakdown(place, out)
    found |= {"family": place.family, "census": str(place.error), "model": model}
    found |= {"seconds": seconds}
    write_json(folder / RESULT, found)
    return found


def seeds_parser(about: str | None, seeds_needed: bool = True) -> argparse.ArgumentParser:
    """What every benchmark on simulated countries is asked."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=seeds_needed)
    parser.add_argument("--folder", type=Path, help="kept, and taken up again; else a passing one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--judge", metavar="WHY", help="look at seeds that are kept for judging")
    return parser


def asked(
    parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, tempfile.TemporaryDirectory | None]:
    """What was asked, with a folder in any case; and the passing one, to be cleaned up at last."""
    given = parser.parse_args()
    passing = None if given.folder else tempfile.TemporaryDirectory()
    if passing is not None:
        given.folder = Path(passing.name)
    return given, passing


def look_at(parser: argparse.ArgumentParser, given: argparse.Namespace, **settings: Any) -> Look:
    """Refuse seeds for judging without a reason; with one, put the look on record before it is."""
    bench = (parser.prog or "").removesuffix(".py")
    try:
        judged = allow(given.seeds, given.judge)
    except ConfigError as refused:
        parser.error(str(refused))
    return Look(bench, given.seeds, given.judge, settings) if judged else Look.none()


def census_error(text: str) -> CensusError:
    """ "counts=5,borders=3,older=2": per cent, pixels, years."""
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in ERRORS or not re.fullmatch(r"\d+(\.\d+)?", value):
            raise argparse.ArgumentTypeError(
                f"{part!r}: expected counts=PER CENT, borders=PIXELS or older=YEARS"
            )
        given[ERRORS[name]] = float(value) / 100 if name == "counts" else float(value)
    if given.get("years_older", 0) % 1:
        raise argparse.ArgumentTypeError(f"{text!r}: older is a whole number of years")
    given["years_older"] = int(given.get("years_older", 0))
    try:
        return CensusError(**given)
    except PopcornError as refused:
        raise argparse.ArgumentTypeError(str(refused)) from None


def override(text: str) -> tuple[str, Any]:
    """ "epochs=30": a setting and its value, as YAML would read it."""
    import yaml

    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, yaml.safe_load(value)


def places_asked(given: argparse.Namespace) -> list[Place]:
    """The places to measure: each seed with an exact census, then with those that err."""
    overrides = dict(given.set or ())
    told = ",".join(f"{name}={value}" for name, value in sorted(overrides.items()))
    run = given.run or re.sub(r"[^\w.,=-]", "_", told)
    errors = [EXACT, *(error for error in given.census_error or () if error != EXACT)]
    country = load_country("demo")
    return [
        dataclasses.replace(
            place_of(
                seed, given.folder, country, given.threads,
                family_of_seed(seed, given.family), error,
            ),
            run=run,
            overrides=overrides,
        )
        for seed in given.seeds
        for error in errors
    ]  # fmt: skip


def accuracy_parser() -> argparse.ArgumentParser:
    """What this benchmark is asked."""
    parser = seeds_parser(__doc__, seeds_needed=False)
    parser.add_argument("--family", choices=sorted(FAMILIES), help="of worlds; else the seeds' own")
    parser.add_argument(
        "--model", nargs="+", choices=("bag", "student"), default=["bag"], dest="models",
        help="what is measured; a student is taught by the bag",
    )  # fmt: skip
    parser.add_argument(
        "--sensors", nargs="+", choices=("both", "s2", "s1"), default=["both"],
        help="what students look at",
    )  # fmt: skip
    parser.add_argument(
        "--maps-only", action="store_true",
        help="train of students the one that maps alone, not those for units unseen: same maps",
    )  # fmt: skip
    parser.add_argument("--prepare-only", action="store_true", help="stop before training")
    parser.add_argument(
        "--census-error", type=census_error, action="append", metavar="counts=5,borders=3,older=2",
        help="measure with such a census too: per cent, pixels, years; may be said again",
    )  # fmt: skip
    parser.add_argument(
        "--set", type=override, action="append", metavar="NAME=VALUE",
        help="a setting of the training other than the demo's; may be said again",
    )  # fmt: skip
    parser.add_argument("--run", help="folder name of what is trained; else it says what is set")
    return parser


def main() -> int:
    """Measure the seeds named and print the table."""
    parser = accuracy_parser()
    given, passing = asked(parser)
    if not given.seeds:
        families = [given.family] if given.family else sorted(FAMILIES)
        given.seeds = [seed for family in families for seed in CHOOSING[family]]
    try:
        places = places_asked(given)
        for place in places:
            settings_of(place)
            if "student" in given.models:
                settings_of_student(place)
    except PopcornError as refused:
        parser.error(str(refused))
    if given.prepare_only:
        for place in places:
            prepare_timed(place)
        return 0
    look = look_at(
        parser,
        given,
        models=given.models,
        sensors=given.sensors,
        census=list(dict.fromkeys(str(place.error) for place in places)),
        set=dict(given.set or ()),
    )
    rows: list[dict[str, Any]] = []
    for place in places:
        rows += measure(place, given.models, given.sensors, not given.maps_only)
        look.found(
            {f"{r['seed']}, {r['census']}, {r['model']}": round(r["ratio"], 3) for r in rows}
        )
    if given.json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)
    if passing:
        passing.cleanup()
    exact = [row for row in rows if row["census"] == str(EXACT)]
    met = all(r["ratio"] <= RATIO_BOUND and r["map_r2"] > r["builtup_r2"] for r in exact)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
