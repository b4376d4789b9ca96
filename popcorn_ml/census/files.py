"""Where census files are: found in folders, taken out of archives, and hashed.

What is in them is read by `readers`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from popcorn_ml.census import archive
from popcorn_ml.census.settings import CensusSettings, CountSettings, FileSettings
from popcorn_ml.census.tables import sha256
from popcorn_ml.edges import within
from popcorn_ml.errors import CensusError


@dataclass(frozen=True)
class Source:
    """A file that numbers came from."""

    file: str
    sha256: str
    bytes: int
    licence: str | None
    url: str | None
    retrieved: str | None


class Files:
    """Where the files of the settings are: the first of some folders that has them.

    Archives are unpacked once into a scratch folder, which goes when the `with` ends.

    Args:
        folders: searched in this order.
    """

    def __init__(self, folders: Path | Sequence[Path]) -> None:
        single = isinstance(folders, (str, Path))
        self.folders = [Path(folders)] if single else [Path(f) for f in folders]  # type: ignore[arg-type, union-attr]
        self._unpacked: dict[Path, list[Path]] = {}
        self._scratch: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Files:
        self._scratch = tempfile.TemporaryDirectory(prefix="popcorn-census-")
        return self

    def __exit__(self, *exc) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def scratch(self) -> Path:
        """The scratch folder."""
        assert self._scratch is not None, "use Files in a with statement"
        return Path(self._scratch.name)

    def path(self, name: str) -> Path:
        """The file of that name.

        Raises:
            CensusError: it is in none of the folders.
            ConfigError: it leads out of them.
        """
        for folder in self.folders:
            if (folder / name).exists():
                return within(folder / name, self.folders)
        raise CensusError(
            "a census file is missing",
            where=self.folders[0] / name,
            expected="the file in one of: " + ", ".join(map(str, self.folders)),
            remedy="put it there, or correct its path in the country's file",
        )

    def has(self, settings: FileSettings) -> bool:
        """Whether the file, or one that fits its name with `{year}`, is there."""
        pattern = settings.file.replace("{year}", "[0-9]" * 4)
        if "{year}" in settings.file:
            return any(True for folder in self.folders for _ in folder.glob(pattern))
        return any((folder / settings.file).exists() for folder in self.folders)

    def expand(self, settings: CountSettings) -> list[CountSettings]:
        """One item for each file that fits a name with `{year}`, by year; else the item itself.

        Raises:
            CensusError: no file fits.
        """
        if "{year}" not in settings.file:
            return [settings]
        head, tail = settings.file.split("{year}", 1)
        folder, prefix = (head.rpartition("/")[0], head.rpartition("/")[2])
        pattern = re.compile(re.escape(prefix) + r"(\d{4})" + re.escape(tail))
        by_year: dict[int, str] = {}
        for root in self.folders:
            for path in sorted((root / folder).glob("*")):
                if m := pattern.fullmatch(path.name):
                    by_year.setdefault(int(m.group(1)), str(Path(folder) / path.name))
        if not by_year:
            raise CensusError(
                "no census file fits the name",
                where=self.folders[0] / settings.file,
                expected="a file with a year in place of {year}",
                remedy="put it there, or correct its path in the country's file",
            )
        return [
            settings.model_copy(update={"file": by_year[year], "year": year})
            for year in sorted(by_year)
        ]

    def open(self, settings: FileSettings, suffixes: Sequence[str]) -> Path:
        """The file itself, taken out of its archive if it is in one.

        Args:
            settings: names the file, and the member of an archive with several.
            suffixes: those that are wanted from an archive.
        """
        path = self.path(settings.file)
        if path.suffix.lower() != ".zip":
            return path
        if path not in self._unpacked:
            target = self.scratch / f"archive{len(self._unpacked)}"
            target.mkdir()
            self._unpacked[path] = archive.unpack(path, target)
        members = self._unpacked[path]
        root = self.scratch
        if settings.member is not None:
            whole = root / members[0].relative_to(root).parts[0] if members else root
            chosen = [m for m in members if m == whole / settings.member]
            chosen = chosen or [m for m in members if m.as_posix().endswith("/" + settings.member)]
        else:
            chosen = [m for m in members if m.suffix.lower() in suffixes]
        if len(chosen) != 1:
            listed = ", ".join(m.relative_to(root).as_posix().split("/", 1)[1] for m in members)
            raise CensusError(
                "the archive does not hold the file"
                if not chosen
                else "the archive holds several files that could be meant",
                where=path,
                expected=settings.member or "one file of " + ", ".join(suffixes),
                found=listed,
                remedy="name it as `member` in the country's file",
            )
        return chosen[0]

    def sources(self, settings: FileSettings) -> tuple[Source, ...]:
        """The file as handed in (and the companions it is read with), with hashes."""
        path = self.path(settings.file)
        paths = [path, *companions(path)]
        return tuple(
            Source(
                file=str(Path(settings.file).with_name(p.name)),
                sha256=sha256(p),
                bytes=p.stat().st_size,
                licence=settings.licence,
                url=settings.url,
                retrieved=settings.retrieved,
            )
            for p in paths
        )


TELLING = (b"<SRS", b"<NoDataValue", b"<Scale", b"<Offset", b"<GeoTransform")
"""What an .aux.xml file says of a raster that changes how it is read; statistics do not."""


def companions(path: Path) -> list[Path]:
    """Files beside another one that it is read with: a shapefile's, a raster's mask and so on."""
    suffix = path.suffix.lower()
    if suffix == ".shp":
        return [p for p in sorted(path.parent.glob(path.stem + ".*")) if p != path]
    if suffix not in (".tif", ".tiff"):
        return []
    beside = [path.with_name(path.name + ".msk"), *(path.with_suffix(s) for s in (".tfw", ".wld"))]
    aux = path.with_name(path.name + ".aux.xml")
    if aux.is_file() and any(word in aux.read_bytes() for word in TELLING):
        beside.append(aux)
    return [p for p in beside if p.is_file()]


def files_of(settings: CensusSettings, folders: Path | Sequence[Path]) -> list[Path]:
    """Every file that a country's census settings name, without repetition, for a manifest.

    Raises:
        CensusError: some of them are in none of the folders; it names all of these.
    """
    found: list[Path] = []
    missing: list[str] = []
    with Files(folders) as files:
        for item in _named(settings, files):
            try:
                path = files.path(item.file)
                found += [path, *companions(path)]
            except CensusError:
                missing.append(item.file)
        if missing:
            first, *others = files.folders
            missing = list(dict.fromkeys(missing))
            raise CensusError(
                "a census file is missing" if len(missing) == 1 else "census files are missing",
                where=first / missing[0] if len(missing) == 1 else first,
                expected=", ".join(str(first / name) for name in missing)
                + (f" (or in {', '.join(map(str, others))})" if others else ""),
                found=f"{len(set(found))} of the files that the country's file names",
                remedy="put them there, or correct their paths in the country's file",
            )
    return list(dict.fromkeys(found))


def _named(settings: CensusSettings, files: Files) -> list[FileSettings]:
    """Files of all levels; a name with `{year}` that no file fits stays as it is."""
    named: list[FileSettings] = []
    for level in settings.levels.values():
        named += [level.boundaries] if level.boundaries else []
        for counts in level.counts:
            tables = files.expand(counts) if files.has(counts) else [counts]
            named += [*tables, *(t.boundaries for t in tables if t.boundaries is not None)]
        named += level.changes
    return named
