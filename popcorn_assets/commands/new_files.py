"""Files that a new country's file names: where they lie, how they are named, what is copied.

A country's file reads from the store, from what POPCORN_FOLDERS opens and from what comes with the
package. A file that lies elsewhere is copied to `data/census/CODE/`, and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.paths import PACKAGED_FILES, data_root
from popcorn_ml.edges import opened_folders
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    from popcorn_ml.agencies import Fetched


@dataclass(frozen=True)
class Copy:
    """A file that has to be copied into the store.

    Attributes:
        source, target: from where, to where.
        there: none (nothing is at the target), same or other.
    """

    source: Path
    target: Path
    there: str


@dataclass(frozen=True)
class Placed:
    """A file as a country's file names it.

    Attributes:
        path: the file itself, where it is now.
        for_census, for_grid: its name in the sections `census` and `grid`.
        copies: what has to be copied for these names to hold.
        said: what is known of it besides: columns, licence, address, when it was fetched.
        reader: how the census reads it; None for a file of somebody's own.
    """

    path: Path
    for_census: str
    for_grid: str
    copies: tuple[Copy, ...] = ()
    said: dict[str, Any] = field(default_factory=dict)
    reader: str | None = None


def placed(given: str | Path, code: str) -> Placed:
    """Where a file of an operator's own belongs; `{year}` in its name stands for every year.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(given).absolute()
    found = files_at(path)
    store = data_root()
    own = store / "census" / code
    for folder, prefix in ((own, f"census/{code}/"), (store, ""), (PACKAGED_FILES, "")):
        if path.is_relative_to(folder):
            name = path.relative_to(folder).as_posix()
            return Placed(path, name, prefix + name)
    if any(path.resolve().is_relative_to(folder.resolve()) for folder in opened_folders()):
        return Placed(path, str(path), str(path))
    copies = tuple(_copy(one, own / one.name) for one in found)
    return Placed(path, path.name, f"census/{code}/{path.name}", copies)


def fetched(found: Fetched, code: str) -> Placed:
    """A file that was fetched from an agency."""
    here = placed(found.path, code)
    said = {name: value for name, value in found.entry().items() if name != "file"}
    return Placed(here.path, here.for_census, here.for_grid, here.copies, said, found.reader)


def carry_out(copies: Sequence[Copy]) -> None:
    """Copy, each file as a whole or not at all."""
    from popcorn_ml.files import write_bytes

    for copy in copies:
        if copy.there != "same":
            copy.target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(copy.target, copy.source.read_bytes())


def files_at(path: Path) -> list[Path]:
    """The files that a path stands for, each with those that belong to it.

    Raises:
        ConfigError: there are none.
    """
    from popcorn_assets.store.sources import with_companions

    pattern = path.name.replace("{year}", "[0-9]" * 4)
    found = sorted(path.parent.glob(pattern)) if "{year}" in path.name else [path]
    files = [one for one in found if one.is_file()]
    if not files:
        raise ConfigError(
            "there is no such file",
            where=str(path),
            expected="a file, or several with {year} in the place of their years",
            remedy="correct the path",
        )
    return [one for file in files for one in with_companions(file)]


def _copy(source: Path, target: Path) -> Copy:
    from popcorn_ml.census.tables import sha256

    if not target.exists():
        return Copy(source, target, "none")
    return Copy(source, target, "same" if sha256(source) == sha256(target) else "other")
