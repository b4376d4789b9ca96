"""`python -m popcorn_ml.training spec.json`: train one member on any machine that has the files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
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
    # The progress bar takes over sys.stdout and would break lines at the terminal's width.
    out = sys.stdout

    def line(content: dict[str, object]) -> None:
        print(json.dumps(content), file=out, flush=True)

    def epoch_line(done: int, total: int, metrics: dict[str, float]) -> None:
        line({"done": done, "total": total, **metrics})

    try:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise PopcornError(
                "the training specification cannot be read", where=path, found=str(error)
            ) from error
        spec = TrainingSpec.from_json(text, path)
        from popcorn_ml.training.fit import train_member

        result = train_member(spec, epoch_line, bar=sys.stderr.isatty())
    except PopcornError as error:
        print(error, file=sys.stderr)
        return 2
    line(
        {
            "done": True,
            "weights": str(result.weights),
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "resumed_after": result.resumed_after,
            "trained": result.trained,
            "held_out": result.held_out,
            "left_out": [asdict(unit) for unit in result.left_out],
            "seconds": round(result.seconds, 1),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
