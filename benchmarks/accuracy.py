"""How well the demo's recipe does on simulated countries that nobody has looked at.

    python -m benchmarks.accuracy --seeds 201 202 203 [--folder FOLDER] [--threads 2] [--json]

For each seed: writes the country's scenes and census, makes composites and built-up area, trains
all members with the settings of `countries/demo.yaml`, maps, adjusts to the census and evaluates
against the truth, 2020 only, with the functions that the assets call and without Dagster. The
truth is opened by the evaluation alone, last. `docs/demo.md` says which seeds settings were chosen
on, and which are for judging; a folder that is given again is taken up where it stopped.

Bound: the adjusted map's RMSE per hectare is at most 0.65 of built-up disaggregation's, and R2 of
the map without adjustment is above that of built-up disaggregation with it. Exit status 1 where a
seed misses it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.judging import allow, family_of_seed
from benchmarks.places import Place, place_of, prepare
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.assets.unseen import Honest, saw
from popcorn_assets.country import load_country
from popcorn_ml.evaluation.report import evaluate
from popcorn_ml.evaluation.without_truth import score_without_truth, unseen_units
from popcorn_ml.files import write_json
from popcorn_ml.mapping.dasymetric import adjust_map
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.simulate.family import FAMILIES
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.spec import TrainingSpec

RATIO_BOUND = 0.65
RESULT = "result.json"


def train(place: Place) -> list[Path]:
    """The weights of every member."""
    settings, weights = place.country.training, []
    pairs = place.composites()
    for number, seed in enumerate(settings.seeds(), start=1):
        folder = place.folder / f"member_{seed}"
        spec = TrainingSpec(
            s1={season: str(pair[0]) for season, pair in pairs.items()},
            s2={season: str(pair[1]) for season, pair in pairs.items()},
            builtup=str(place.builtup),
            units=str(place.units(place.level)),
            counts=str(place.counts(place.level)),
            extractor=str(DEMO_EXTRACTOR),
            out=str(folder / "out"),
            work=str(folder / "work"),
            device="cpu",
            threads=place.threads,
            **settings.of_member(number),
        )
        weights.append(train_member(spec).weights)
    return weights


def judge(place: Place, members: list[Path]) -> dict[str, float]:
    """Map, adjust, and open the truth."""
    grid, out = place.country.pixel_grid(), place.folder / "map"
    map_population(
        MappingSpec(
            composites=place.composites(),
            builtup=place.builtup,
            members=members,
            grid=grid,
            out=out,
            tile_px=place.country.mapping.tile_px,
            device="cpu",
            threads=place.threads,
        )
    )
    people = place.people(place.level)
    names = (
        out / name for name in ("population.tif", "population_members.tif", "builtup_score.tif")
    )
    adjust_map(*names, place.units(place.level), people, grid, out / "adjusted")
    fine_people = place.people("fine")
    truth = (place.country.evaluation.truth or "").format(year=place.year)
    found = evaluate(
        grid=grid,
        population=out / "population.tif",
        adjusted=out / "adjusted" / "population.tif",
        builtup=out / "builtup_score.tif",
        units=place.units(place.level),
        people=people,
        truth=place.folder / truth,
        fine_units=place.units("fine"),
        fine_people=fine_people,
        threads=place.threads,
    )
    trained = [json.loads((one.parent / "units.json").read_text())["trained"] for one in members]
    unseen = unseen_units(
        grid=grid,
        population=out / "population.tif",
        members=out / "population_members.tif",
        builtup=out / "builtup_score.tif",
        units=place.units(place.level),
        people=people,
        saw=saw([set(ids) for ids in trained], place.units(place.level), len(members)),
        threads=place.threads,
    )
    honest = Honest(unseen, score_without_truth(unseen))
    honest.beside(found, fine_people)
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
        **estimates(honest),
    }


def estimates(honest: Honest) -> dict[str, float]:
    """What is told without any truth over what it is on the finer level, less 1: 0 were exact.

    Errors as shares of a unit's mean people: of the map, by units that members never saw; of the
    adjusted map, within joined units. Empty where nothing was held out.
    """
    finer = honest.estimated()
    if not finer:
        return {}
    told = {"map": honest.scores.out_of_fold, "adjusted": finer["estimated"]["adjusted"]}
    return {
        f"{product}_{share}_estimate": told[product][share] / finer["real"][product][share] - 1
        for product in told
        for share in ("mae_share", "rmse_share")
    }


def measure(seed: int, folder: Path, threads: int) -> dict[str, float]:
    """One seed from its scenes to its scores."""
    place = Place(seed, folder / str(seed), load_country("demo"), threads)
    begun = time.monotonic()
    prepare(place)
    prepared = time.monotonic()
    members = train(place)
    trained = time.monotonic()
    found = judge(place, members)
    found |= {"prepare_s": round(prepared - begun), "train_s": round(trained - prepared)}
    write_json(place.folder / RESULT, found)
    return found


def seeds_parser(about: str | None) -> argparse.ArgumentParser:
    """What every benchmark on simulated countries is asked."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, help="kept, and taken up again; else a passing one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
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


def main() -> int:
    """Measure the seeds named and print one line each."""
    parser = seeds_parser(__doc__)
    parser.add_argument("--family", choices=sorted(FAMILIES))
    parser.add_argument("--prepare-only", action="store_true", help="stop before training")
    given, passing = asked(parser)
    folder = given.folder
    if given.prepare_only:
        for seed in given.seeds:
            family = family_of_seed(seed, given.family)
            prepare(place_of(seed, folder, load_country("demo"), given.threads, family))
        return 0
    rows = []
    if not given.json:
        print("seed  ratio  RMSE adjusted / built-up  R2 map / built-up  total", flush=True)
    for seed in given.seeds:
        row = measure(seed, folder, given.threads)
        rows.append(row)
        if not given.json:
            print(
                f"{seed:4d}  {row['ratio']:.3f}  {row['adjusted_rmse']:8.2f} / "
                f"{row['builtup_rmse']:.2f}          {row['map_r2']:.3f} / {row['builtup_r2']:.3f}"
                f"      {row['total']:+.1%}",
                flush=True,
            )
    if given.json:
        print(json.dumps(rows, indent=1))
    if passing:
        passing.cleanup()
    met = all(r["ratio"] <= RATIO_BOUND and r["map_r2"] > r["builtup_r2"] for r in rows)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
