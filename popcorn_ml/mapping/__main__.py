"""`python -m popcorn_ml.mapping spec.json`: map a country on any machine that has the files."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from popcorn_ml.errors import PopcornError
from popcorn_ml.mapping.predict import MappingSpec, map_population


def main(arguments: list[str] | None = None) -> int:
    """Map as a specification says.

    Prints one line of JSON a tile and one at the end; errors go to standard error. Exit status 0,
    or 2 on input that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m popcorn_ml.mapping", description=main.__doc__)
    parser.add_argument("spec", type=Path, help="JSON file with the fields of MappingSpec")
    path = parser.parse_args(arguments).spec
    begin = time.monotonic()
    try:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PopcornError(
                "the mapping specification cannot be read", where=path, found=str(error)
            ) from error
        spec = MappingSpec.from_json(text, path)
        map_population(spec, _print_tile)
    except PopcornError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = round(time.monotonic() - begin, 1)
    print(json.dumps({"finished": True, "out": str(spec.out), "seconds": seconds}), flush=True)
    return 0


def _print_tile(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
