"""What a student's map costs beside the ensemble's.

    python -m benchmarks.student [--pixels 4] [--rounds 3] [--folder FOLDER] [--threads 1]

One place, made from the demo country, is mapped by five members and by a student, four seasons
each, from files to files by `python -m popcorn_ml.mapping`, in turn; what counts is the ratio
within a round. The built-up score, which both need once, is told apart. How fast a network runs
does not depend on what it has learnt, so that neither is trained.

Bound: a fifth of the ensemble's seconds, medians. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.mapping import MEMBERS, ROOT, Way, mapping_way, side_of, times
from benchmarks.mapping_place import BenchPlace, write_place
from popcorn_ml.mapping.predict import MappingSpec
from popcorn_ml.mapping.together import inputs_of
from popcorn_ml.model.student import new_student
from popcorn_ml.model.weights import save_student
from popcorn_ml.sentinel import SENSORS

SHARE = 0.2


def student_way(place: BenchPlace, work: Path, bag: Way, threads: int) -> Way:
    """A student's map of the place, from the score that was made for the ensemble's."""
    out = work / "student"
    model = new_student(inputs_of(SENSORS), 1.0, seed=1).eval()
    weights = save_student(model, out / "weights" / "student.safetensors", {"name": "student"})
    spec = MappingSpec(
        place.composites,
        bag.out / "builtup_score.tif",
        [weights],
        place.grid,
        out / "map",
        device="cpu",
        threads=threads,
        kind="student",
    )
    path = out / "population.json"
    path.write_text(spec.to_json())
    command = [sys.executable, "-m", "popcorn_ml.mapping", str(path)]
    return Way("student", {"population": command}, ROOT, out, bag.millions)


def limit(way: Way, threads: int) -> None:
    """Have a way's commands use so many threads."""
    for part in way.commands:
        path = way.out / f"{part}.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "threads": threads}))


def compare(work: Path, given: argparse.Namespace) -> dict[str, float]:
    """Both ways of mapping one place, in turn."""
    side = side_of(given.pixels)
    place = write_place(work, side, side, MEMBERS, sparse=False)
    bag = mapping_way("bag", place, work)
    limit(bag, given.threads)
    student = student_way(place, work, bag, given.threads)
    for _ in range(given.rounds):
        bag.take()
        student.take()
    ratio = times(bag, student, "population")
    pixels = side * side / 1e9
    return {
        "pixels": side * side,
        "threads": given.threads,
        "members": MEMBERS,
        "bag, ns a pixel": bag.told()["population_s"] / pixels,
        "student, ns a pixel": student.told()["population_s"] / pixels,
        "score, ns a pixel": bag.told()["builtup_s"] / pixels,
        "times as fast": ratio["median"],
        "least": ratio["least"],
        "most": ratio["most"],
        "by CPU time": ratio["cpu"],
    }


def main() -> int:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pixels", type=float, default=4.0, help="millions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept, and taken again; else a passing one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        found = compare(given.folder or Path(passing), given)
    print(json.dumps(found, indent=1))
    return 0 if found["times as fast"] * SHARE >= 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
