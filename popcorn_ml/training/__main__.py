"""`python -m popcorn_ml.training spec.json`: train one member on any machine that has the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from popcorn_ml.compute.command import LAUNCHED_BY, Report, run_command
from popcorn_ml.training.run import epoch_text, train
from popcorn_ml.training.spec import TrainingSpec


def main(arguments: list[str] | None = None) -> int:
    """Train one ensemble member as a specification says (the fields of TrainingSpec).

    Prints one line of JSON an epoch and one at the end; the progress bar and errors go to
    standard error. Exit status 0, or 2 on input that cannot be used.
    """
    return run_command("python -m popcorn_ml.training", main.__doc__, _train, arguments)


def _train(text: str, path: Path, report: Report) -> dict[str, Any]:
    def epoch(done: int, total: int, metrics: dict[str, float]) -> None:
        report.line({"done": done, "total": total, **metrics})
        report.log(epoch_text(done, total, metrics))

    spec = TrainingSpec.from_json(text, path)
    report.device(spec.device)
    return train(
        spec,
        epoch,
        note=os.environ.get(LAUNCHED_BY, f"process {os.getpid()}"),
        say=report.note,
        bar=sys.stderr.isatty(),
    )


if __name__ == "__main__":
    sys.exit(main())
