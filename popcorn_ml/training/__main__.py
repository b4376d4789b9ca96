"""`python -m popcorn_ml.training spec.json`: train one member on any machine that has the files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from popcorn_ml.errors import PopcornError
from popcorn_ml.training.spec import TrainingSpec


def main(arguments: list[str] | None = None) -> int:
    """Train as a specification says.

    Prints one line of JSON an epoch and one at the end; the progress bar and errors go to
    standard error. Exit status 0, or 2 on input that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m popcorn_ml.training", description=main.__doc__)
    parser.add_argument("spec", type=Path, help="JSON file with the fields of TrainingSpec")
    path = parser.parse_args(arguments).spec
    try:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise PopcornError(
                "the training specification cannot be read", where=path, found=str(error)
            ) from error
        spec = TrainingSpec.from_json(text, path)
        from popcorn_ml.training.fit import train_member

        result = train_member(spec, _print_epoch, bar=sys.stderr.isatty())
    except PopcornError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        json.dumps(
            {
                "done": True,
                "weights": str(result.weights),
                "best_epoch": result.best_epoch,
                "epochs": result.epochs,
                "resumed_after": result.resumed_after,
                "trained": result.trained,
                "held_out": result.held_out,
                "left_out": [unit.__dict__ for unit in result.left_out],
                "seconds": round(result.seconds, 1),
            }
        ),
        flush=True,
    )
    return 0


def _print_epoch(done: int, total: int, metrics: dict[str, float]) -> None:
    print(json.dumps({"done": done, "total": total} | metrics), flush=True)


if __name__ == "__main__":
    sys.exit(main())
