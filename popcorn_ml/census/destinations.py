"""Which of a country's census files something handed in is, by its name, and where it belongs."""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from popcorn_ml.census import archive
from popcorn_ml.census.settings import CensusSettings, FileSettings
from popcorn_ml.census.tables import sha256
from popcorn_ml.errors import CensusError

SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".sbn", ".sbx", ".qix")


def _named(settings: CensusSettings) -> Iterator[tuple[str, FileSettings]]:
    """Every file that the settings name, with its level."""
    for name, level in settings.levels.items():
        if level.boundaries is not None:
            yield name, level.boundaries
        for counts in level.counts:
            yield name, counts
            if counts.boundaries is not None:
                yield name, counts.boundaries
        for changes in level.changes:
            yield name, changes


def _targets(file_name: str, settings: CensusSettings) -> list[tuple[str, str]]:
    """Paths in the settings that a file of this name takes, each with its level."""
    out = []
    suffix = Path(file_name).suffix.lower()
    for level, item in _named(settings):
        path = Path(item.file)
        if any(part == ".." for part in path.parts) or path.is_absolute():
            continue  # files outside the project's folders are the operator's own
        pattern = _literal(path.name).replace("{year}", "[0-9]" * 4)
        if fnmatch.fnmatchcase(file_name, pattern):
            out.append((str(path.with_name(file_name)), level))
        elif (
            path.suffix.lower() == ".shp"
            and suffix in SHAPEFILE_PARTS
            and Path(file_name).stem == path.stem
        ):
            out.append((str(path.with_suffix(Path(file_name).suffix)), level))
    return out


def _literal(name: str) -> str:
    """A name as a pattern that fits only itself (`{year}` aside)."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def lay_out(copy: Path, settings: CensusSettings, staged: Path) -> list[tuple[str, str]]:
    """Lay the file, or what an archive holds, out under the paths of the settings.

    Returns:
        Relative path and level of each.
    """
    named = sorted({Path(item.file).name for _, item in _named(settings)})
    members = [copy]
    targets = _targets(copy.name, settings)
    if copy.suffix.lower() in SHAPEFILE_PARTS:
        raise CensusError(
            "a shapefile is several files, and one came alone",
            where=copy.name,
            expected="one zip archive with the .shp, .shx, .dbf and .prj files",
            found=copy.suffix,
            remedy="pack them together and put the archive into the inbox",
        )
    if copy.suffix.lower() == ".zip":
        unpacked = copy.parent / "unpacked"
        contents = archive.unpack(copy, unpacked)
        if not targets:
            members = contents
    placed: list[tuple[str, str]] = []
    for member in members:
        for relative, level in _targets(member.name, settings):
            target = staged / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and sha256(target) != sha256(member):
                raise CensusError(
                    "the archive holds two files of one name",
                    where=copy.name,
                    found=member.name,
                    remedy="keep the one that is meant",
                )
            shutil.copyfile(member, target)
            placed.append((relative, level))
    if not placed:
        raise CensusError(
            "no level of the country has a file of this name",
            where=copy.name,
            expected="one of " + ", ".join(named),
            found=", ".join(sorted(m.name for m in members))[:300],
            remedy="rename it, or name it in the `census` section of the country's file",
        )
    return placed
