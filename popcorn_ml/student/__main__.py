"""`python -m popcorn_ml.student spec.json`: train a student on any machine that has the files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from popcorn_ml.compute.command import LAUNCHED_BY, Report, run_command
from popcorn_ml.student.run import part_text, train
from popcorn_ml.student.spec import StudentSpec


def main(arguments: list[str] | None = None) -> int:
    """Train a student as a specification says (the fields of StudentSpec).

    Prints one line of JSON every few steps and one at the end; errors go to standard error. Exit
    status 0, or 2 on input that cannot be used.
    """
    return run_command("python -m popcorn_ml.student", main.__doc__, _train, arguments)


def _train(text: str, path: Path, report: Report) -> dict[str, Any]:
    def part(done: int, total: int, metrics: dict[str, Any]) -> None:
        report.line({"done": done, "total": total, **metrics})
        report.log(part_text(done, total, metrics))

    spec = StudentSpec.from_json(text, path)
    report.device(spec.device)
    return train(
        spec,
        part,
        note=os.environ.get(LAUNCHED_BY, f"process {os.getpid()}"),
        say=report.note,
    )


if __name__ == "__main__":
    sys.exit(main())
