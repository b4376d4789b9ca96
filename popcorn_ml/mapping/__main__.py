"""`python -m popcorn_ml.mapping spec.json`: map a country on any machine that has the files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from popcorn_ml.compute.command import Report, run_command
from popcorn_ml.errors import ConfigError

TASKS = ("population", "builtup")


def main(arguments: list[str] | None = None) -> int:
    """Map as a specification says: the fields of MappingSpec, or those of BuiltupSpec together
    with "task": "builtup".

    Prints one line of JSON a tile and one at the end; errors go to standard error. Exit status 0,
    or 2 on input that cannot be used.
    """
    return run_command("python -m popcorn_ml.mapping", main.__doc__, _map, arguments)


def _map(text: str, path: Path, report: Report) -> dict[str, Any]:
    begin = time.monotonic()
    task, text = split_task(text, path)
    out: Path
    if task == "builtup":
        from popcorn_ml.mapping.builtup import BuiltupSpec, run_builtup

        builtup = BuiltupSpec.from_json(text, path)
        out = builtup.out
        report.device(builtup.device)
        _say_if_slower(report, builtup.engine, builtup.device)
        written = run_builtup(builtup, report.tiles)
    else:
        from popcorn_ml.mapping.predict import MappingSpec, map_population

        mapping = MappingSpec.from_json(text, path)
        out = mapping.out
        report.device(mapping.device)
        _say_if_slower(report, mapping.engine, mapping.device, mapping.precision)
        written = map_population(mapping, report.tiles)
    seconds = round(time.monotonic() - begin, 1)
    return {"finished": True, "out": str(out), "seconds": seconds, **written.as_dict()}


def _say_if_slower(report: Report, engine: str, device: str, precision: str = "float32") -> None:
    from popcorn_ml.mapping.engine.choice import second_best

    said = second_best(engine, device, precision)
    if said is not None:
        report.note(said)


def split_task(text: str, where: Path) -> tuple[str, str]:
    """Which task a specification is of, and the rest of it.

    Raises:
        ConfigError: a task that there is not.
    """
    try:
        given = json.loads(text)
    except ValueError:
        return TASKS[0], text  # refused, with its place, by whatever reads the rest
    if not isinstance(given, dict) or "task" not in given:
        return TASKS[0], text
    task = given.pop("task")
    if task not in TASKS:
        raise ConfigError(
            "there is no such task",
            where=where,
            expected=" or ".join(TASKS),
            found=task,
        )
    return task, json.dumps(given)


if __name__ == "__main__":
    sys.exit(main())
