"""The Humanitarian Data Exchange: OCHA's common operational datasets, from its CKAN catalogue.

`package_show` says which files a dataset has, their sizes, and its terms: `cod-ab-CODE` are the
boundaries (COD-AB), `cod-ps-CODE` the counts (COD-PS), each unit with its P-code. A hash is stated
of few files, and compared where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from popcorn_ml.agencies.addresses import Addresses
from popcorn_ml.agencies.agency import Agency, Offer, Reading, nearest_year, said
from popcorn_ml.agencies.counted import read_people
from popcorn_ml.agencies.fetched import Wanted
from popcorn_ml.agencies.polygons import read_polygons
from popcorn_ml.agencies.web import NotThere, Web
from popcorn_ml.census import archive
from popcorn_ml.census.boundaries import VECTOR_SUFFIXES
from popcorn_ml.errors import CensusError

TERMS = "as the dataset's page states (most: CC BY-IGO)"
_LEVEL = re.compile(r"adm(?:in)?(?:bnda_adm)?_?(\d)(?!\d|-\d)", re.IGNORECASE)
"""A level in a name; `adm_0-4` is all of them."""
_NO_AREAS = re.compile(r"line|point|centroid|capital|label|lbl|tabular|gazetteer", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d\d)(?!\d)")


class _Catalogue(Agency):
    """What both datasets have in common."""

    licence = TERMS
    dataset: str

    def __init__(self, addresses: Addresses) -> None:
        self._base = addresses.hdx

    def _id(self, wanted: Wanted) -> str:
        return f"{self.dataset}-{wanted.low}"

    def _page(self, wanted: Wanted) -> str:
        return f"{self._base}/dataset/{self._id(wanted)}"

    def _package(self, wanted: Wanted, web: Web) -> tuple[str, Mapping[str, Any]]:
        """Address and description of the dataset."""
        address = f"{self._base}/api/3/action/package_show?id={self._id(wanted)}"
        try:
            answer = web.json(address)
        except NotThere as error:
            raise NotThere(
                f"HDX has no dataset {self._id(wanted)}",
                where=address,
                found=error.found,
                remedy="see whether the ISO code is right, or take another source",
            ) from error
        return address, said(answer, "result", address, dict)

    def _offer(
        self,
        package: Mapping[str, Any],
        resource: Mapping[str, Any],
        address: str,
        stem: str,
        year: int | None,
    ) -> Offer:
        """A resource of a dataset."""
        link = resource.get("download_url") or said(resource, "url", address)
        uploaded = resource.get("url_type") == "upload"
        size = resource.get("size")
        terms = [package.get("license_title"), package.get("license_other")]
        return Offer(
            address=str(link),
            name=stem + _suffix(str(link)),
            licence=", ".join(str(t) for t in terms if t) or TERMS,
            year=year,
            size_bytes=size if uploaded and isinstance(size, int) and size > 0 else None,
            digest=(str(resource.get("hash") or "") or None) if uploaded else None,
            stated={
                "dataset": package.get("name"),
                "resource": resource.get("name"),
                "changed": resource.get("last_modified"),
                "source": package.get("dataset_source"),
            },
        )

    def _none(
        self, what: str, resources: Sequence[Mapping[str, Any]], wanted: Wanted
    ) -> CensusError:
        listed = ", ".join(f"{r.get('name')} ({r.get('format')})" for r in resources)
        return NotThere(
            f"the dataset {self._id(wanted)} has no {what} of level {wanted.level}",
            where=self._page(wanted),
            expected=f"a file with adm{wanted.level} in its name",
            found=listed or "no file",
            remedy="try another --level, or another source",
        )


class CodBoundaries(_Catalogue):
    """COD-AB: an archive of GeoJSON or of shapefiles, of one level or of all."""

    key, title = "cod", "OCHA COD-AB, administrative boundaries (HDX)"
    dataset = "cod-ab"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        return re.compile(rf"cod-ab-{wanted.iso3}-adm{wanted.level}\.(zip|geojson)")

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        what = "the archive of GeoJSON, or of shapefiles where there is none,"
        return self._page(wanted), what, f"cod-ab-{wanted.iso3}-adm{wanted.level}.zip"

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        address, package = self._package(wanted, web)
        resources = said(package, "resources", address, list)
        for kind in ("geojson", "shp", "shapefile"):
            of_kind = [r for r in resources if kind in _kind(r)]
            own = [r for r in of_kind if _level(_name(r)) == wanted.level]
            all_levels = [r for r in of_kind if _level(_name(r)) is None]
            chosen = next(iter([*own, *all_levels]), None)
            if chosen is not None:
                stem = f"cod-ab-{wanted.iso3}-adm{wanted.level}"
                return self._offer(package, chosen, address, stem, None)
        raise self._none("archive of GeoJSON or shapefiles", resources, wanted)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        settings = {}
        if path.suffix == ".zip":
            settings = {"member": _member(path, wanted.level)}
        documented = f"ADM{wanted.level}_PCODE, or adm{wanted.level}_pcode"
        reading = read_polygons(path, "cod", documented, settings)
        _expect_level(reading, wanted, path)
        return reading


class CodCounts(_Catalogue):
    """COD-PS: a table a level and year, or a workbook with a sheet a level."""

    key, title = "cod", "OCHA COD-PS, population statistics (HDX)"
    dataset = "cod-ps"
    limit_bytes = 256 * 1024**2

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        stem = f"cod-ps-{wanted.iso3}-adm{wanted.level}"
        return re.compile(rf"{stem}-(?P<year>\d{{4}})\.(csv|xlsx)")

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        name = f"cod-ps-{wanted.iso3}-adm{wanted.level}-YEAR.csv"
        what = f"the table of level {wanted.level} (CSV or XLSX; YEAR: of its counts)"
        return self._page(wanted), what, name

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        address, package = self._package(wanted, web)
        resources = said(package, "resources", address, list)
        tables = [r for r in resources if _kind(r) == "csv" and _level(_name(r)) == wanted.level]
        tables = tables or [
            r for r in resources if "xlsx" in _kind(r) and re.search(r"pop", _name(r), re.I)
        ]
        if not tables:
            raise self._none("table", resources, wanted)
        dated = [(_year(r, package), r) for r in tables]
        years = [year for year, _ in dated if year is not None]
        year = nearest_year(years, wanted.year) if years else None
        of_year = [r for y, r in dated if y == year]
        chosen = next((r for r in of_year if "legacy" not in _name(r).lower()), of_year[0])
        stem = f"cod-ps-{wanted.iso3}-adm{wanted.level}-{year or wanted.year}"
        return self._offer(package, chosen, address, stem, year)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        settings = {}
        if path.suffix == ".xlsx":
            settings = {"sheet": _sheet(path, wanted.level)}
        documented = f"ADM{wanted.level}_PCODE (or admin{wanted.level}Pcode) and T_TL"
        reading = read_people(path, "cod", year, documented, settings)
        _expect_level(reading, wanted, path)
        return reading


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource.get("name") or "")


def _kind(resource: Mapping[str, Any]) -> str:
    return str(resource.get("format") or "").casefold()


def _suffix(link: str) -> str:
    suffix = PurePosixPath(urlsplit(link).path).suffix.lower()
    if not re.fullmatch(r"\.[a-z0-9]{1,10}", suffix):
        return ""
    return ".geojson" if suffix == ".json" else suffix


def _level(name: str) -> int | None:
    """The level that a file's name says it is of."""
    found = {int(level) for level in _LEVEL.findall(name)}
    return found.pop() if len(found) == 1 else None


def _year(resource: Mapping[str, Any], package: Mapping[str, Any]) -> int | None:
    """The year of a table: as its name says, else as it is described, else the dataset's last."""
    for text in (_name(resource), str(resource.get("description") or "")):
        found = _YEAR.findall(text)
        if found:
            return int(found[-1])
    period = _YEAR.findall(str(package.get("dataset_date") or ""))
    return int(period[-1]) if period else None


def _member(path: Path, level: int) -> str:
    """The file of a level in an archive.

    Raises:
        CensusError: as `archive.inspect`; or there is none, or several.
    """
    members = [m.filename for m in archive.inspect(path) if not archive.systems_own(m.filename)]
    areal = [
        m
        for m in members
        if PurePosixPath(m).suffix.lower() in VECTOR_SUFFIXES
        and not _NO_AREAS.search(PurePosixPath(m).name)
    ]
    chosen = [m for m in areal if _level(PurePosixPath(m).name) == level]
    if len(chosen) == 1:
        return chosen[0]
    raise CensusError(
        f"the archive has {'several files' if chosen else 'no file'} of level {level}",
        where=path,
        expected=f"one with adm{level} in its name",
        found=", ".join(chosen or areal or members)[:400],
        remedy="try another --level; or describe the archive in the country's file, with its "
        "`member`",
    )


def _sheet(path: Path, level: int) -> str:
    """The sheet of a level in a workbook."""
    import openpyxl

    archive.inspect(path, noun="workbook")
    book = openpyxl.load_workbook(path, read_only=True)
    try:
        names = list(book.sheetnames)
    finally:
        book.close()
    chosen = [name for name in names if _level(name) == level]
    if len(chosen) == 1:
        return chosen[0]
    raise CensusError(
        f"the workbook has {'several sheets' if chosen else 'no sheet'} of level {level}",
        where=path,
        expected=f"one with adm{level} in its name",
        found=", ".join(names)[:400],
        remedy="try another --level; or hand the workbook in as --counts FILE",
    )


def _expect_level(reading: Reading, wanted: Wanted, path: Path) -> None:
    """Refuse a file of another level: its deepest P-codes are not the ones asked for."""
    column = str(reading.settings["columns"]["id"])
    found = _LEVEL.match(column)
    if found is None or int(found[1]) != wanted.level:
        raise CensusError(
            "the file is of another level",
            where=path,
            expected=f"P-codes of level {wanted.level}",
            found=column,
            remedy=f"try --level {found[1]}" if found else "try another --level",
        )
