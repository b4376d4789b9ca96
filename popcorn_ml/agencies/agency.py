"""What every agency's interface is here, and how a file of one is fetched, checked and kept.

An agency says where its file is, what is known of it, and how the census reads it. Everything else
is the same for all: nothing is fetched twice, a file appears under its name only when it is whole
and can be read, and where the network is not there a person may put the file in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from popcorn_ml.agencies.fetched import (
    Fetched,
    Wanted,
    date_of,
    read_record,
    recorded,
    today,
    write_record,
)
from popcorn_ml.agencies.web import Downloaded, NotThere, Progress, Refused, Web, web_page
from popcorn_ml.census.settings import ReaderName
from popcorn_ml.census.tables import sha256
from popcorn_ml.errors import AgencyDown, CensusError
from popcorn_ml.files import replacing

DIGESTS = {32: "md5", 64: "sha256"}
"""Hash of a file, by the number of its hexadecimal digits."""

MOST_TERMS = 300
"""Characters of an agency's terms that are kept; the address leads to the rest."""


@dataclass(frozen=True)
class Offer:
    """A file that an agency offers.

    Attributes:
        address: where it is.
        name: what it is kept as.
        licence: its terms, in the agency's words.
        year: of the counts, or that the boundaries represent; None where nothing says so.
        size_bytes, digest: what the agency says of it, if anything.
        stated: what else it says, for the record.
    """

    address: str
    name: str
    licence: str
    year: int | None = None
    size_bytes: int | None = None
    digest: str | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How the census reads a file.

    Attributes:
        reader, settings: as of `Fetched`.
        number: of units or of rows.
        year: of the counts, where the file says so.
        stated: what was seen in it, for the record.
    """

    reader: ReaderName
    settings: Mapping[str, Any]
    number: int
    year: int | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)


class NotTheFile(CensusError):
    """What came is another file than the one that is meant."""


class Agency(Protocol):
    """One public interface of an agency.

    Attributes:
        key: its name here.
        title: its name.
        licence: its general terms, for a file that came without its own.
        limit_bytes: no file of it is larger.
        comes_as: suffix of what comes, where that is not what is kept.
    """

    key: str
    title: str
    licence: str
    limit_bytes: int = 1024**3
    comes_as: str | None = None

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        """What the file may be kept as; a group `year`, where it is part of the name."""

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        """For a person: an address to open, what to take from there, what to keep it as."""

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        """Ask the service for its file.

        Raises:
            AgencyDown: it does not answer.
            CensusError: it has none, or answers something else than it documents.
        """

    def further(self, came: Path, offer: Offer) -> Offer | None:
        """Where the file is, if what came only says so; None where it is the file."""
        return None

    def convert(self, came: Path, kept: Path) -> None:
        """Make what is kept of what came, where `comes_as` says that they differ."""
        raise NotImplementedError

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        """How the census reads a file, after reading it.

        Raises:
            CensusError: it cannot, or the file is of something else.
        """


def fetch(
    agency: Agency,
    wanted: Wanted,
    folder: Path,
    web: Web,
    *,
    again: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """The file of an agency: the one that is there, else one that is fetched.

    Args:
        folder: where it is kept, with its record.
        again: fetch it whatever is there.
        progress: told while it comes.

    Raises:
        AgencyDown: the service does not answer; says what a person can put where.
        CensusError: it has no such file, or what came is not what it should be.
    """
    if not again:
        held = _held(agency, wanted, folder)
        if held is not None:
            return held
    try:
        offer = agency.offer(wanted, web)
        return _downloaded(agency, wanted, folder, offer, web, progress)
    except (AgencyDown, NotThere, NotTheFile, Refused) as error:
        raise _with_hand(error, agency, wanted, folder) from error


def _held(agency: Agency, wanted: Wanted, folder: Path) -> Fetched | None:
    """The file that is there, with its record; one that a person put there gets one."""
    path = _kept(agency.names(wanted), wanted, folder)
    if path is None:
        return None
    if read_record(path) is not None:
        return recorded(path, wanted)
    year = _year_of(agency.names(wanted), path.name)
    if agency.comes_as is not None and path.suffix == agency.comes_as:
        came, path = path, path.with_suffix(".csv")
        with replacing(path) as draft:
            agency.convert(came, draft)
    _refuse_web_page(path, str(path))
    reading = agency.reading(path, wanted, year)
    fetched = _fetched(
        agency,
        path,
        reading,
        Offer(agency.by_hand(wanted)[0], path.name, agency.licence, year),
        by_hand=True,
    )
    write_record(fetched, wanted)
    return fetched


def _kept(names: re.Pattern[str], wanted: Wanted, folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    found = {
        p: _year_of(names, p.name) for p in sorted(folder.iterdir()) if names.fullmatch(p.name)
    }
    years = {year for year in found.values() if year is not None}
    best = nearest_year(years, wanted.year) if years else None
    return next((path for path, year in found.items() if year == best), None)


def _year_of(names: re.Pattern[str], name: str) -> int | None:
    match = names.fullmatch(name)
    given = match.groupdict().get("year") if match else None
    return int(given) if given else None


def nearest_year(years: Iterable[int], wanted: int) -> int:
    """The latest of some years that is not after another, else the earliest."""
    years = sorted(years)
    return max((y for y in years if y <= wanted), default=years[0])


def _downloaded(
    agency: Agency,
    wanted: Wanted,
    folder: Path,
    offer: Offer,
    web: Web,
    progress: Progress | None,
) -> Fetched:
    target = folder / offer.name
    with replacing(target) as draft:
        came = draft if agency.comes_as is None else draft.with_suffix(agency.comes_as)
        try:
            done = web.download(offer.address, came, agency.limit_bytes, progress)
            further = agency.further(came, offer)
            if further is not None:
                offer = further
                done = web.download(offer.address, came, agency.limit_bytes, progress)
            _as_stated(offer, done)
            if came == draft:
                _refuse_web_page(came, offer.address)
            else:
                agency.convert(came, draft)
            reading = agency.reading(draft, wanted, offer.year)
        except CensusError as error:
            drafts = {str(draft): offer.address, str(came): offer.address}
            names = {draft.name: offer.name, came.name: offer.name}
            raise _told(error, {**drafts, **names}) from error
        finally:
            if came != draft:
                came.unlink(missing_ok=True)
    fetched = _fetched(agency, target, reading, offer)
    write_record(fetched, wanted)
    return fetched


def _fetched(
    agency: Agency, path: Path, reading: Reading, offer: Offer, by_hand: bool = False
) -> Fetched:
    return Fetched(
        path=path,
        source=agency.key,
        licence=_in_a_line(offer.licence),
        address=offer.address,
        retrieved=date_of(path) if by_hand else today(),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        year=offer.year if reading.year is None else reading.year,
        reader=reading.reader,
        settings=reading.settings,
        number=reading.number,
        by_hand=by_hand,
        stated={**offer.stated, **reading.stated},
    )


def _in_a_line(text: str) -> str:
    """Terms as an agency writes them, which may be a page with markup."""
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return plain if len(plain) <= MOST_TERMS else plain[:MOST_TERMS] + " ..."


def _as_stated(offer: Offer, done: Downloaded) -> None:
    """Refuse a file that is not the one that the agency describes."""
    if offer.size_bytes is not None and done.size_bytes != offer.size_bytes:
        raise NotTheFile(
            "the file has not the size that the agency states",
            where=offer.address,
            expected=f"{offer.size_bytes} bytes",
            found=f"{done.size_bytes} bytes",
            remedy="run again; if it stays so, the agency's catalogue is behind its file: fetch "
            "that by hand and look at it",
        )
    kind = DIGESTS.get(len(offer.digest or ""))
    if kind is None or offer.digest is None:
        return
    found = getattr(done, kind)
    if found != offer.digest.lower():
        raise NotTheFile(
            "the file is not the one that the agency describes: its hash is another",
            where=offer.address,
            expected=f"{kind} {offer.digest}",
            found=f"{kind} {found}",
            remedy="run again; if it stays so, fetch the file by hand and ask the agency",
        )


def _refuse_web_page(path: Path, where: str) -> None:
    with path.open("rb") as stream:
        page = web_page(stream.read(65536))
    if page is not None:
        raise NotTheFile(
            "a web page came instead of the file",
            where=where,
            expected=f"a {path.suffix} file",
            found=page,
            remedy="open the address in a browser: it may ask for a login, or the file has moved",
        )


def _told(error: CensusError, names: Mapping[str, str]) -> CensusError:
    """The same error, of the file that is meant and not of its draft."""

    def put(value: object) -> str | None:
        if value is None:
            return None
        text = str(value)
        for old, new in names.items():
            text = text.replace(old, new)
        return text

    return type(error)(
        put(error.what) or "",
        where=put(error.where),
        expected=put(error.expected),
        found=put(error.found),
        remedy=put(error.remedy),
    )


def _with_hand(error: CensusError, agency: Agency, wanted: Wanted, folder: Path) -> CensusError:
    """The same error, and what a person can do instead."""
    address, what, name = agency.by_hand(wanted)
    hand = (
        f"by hand: open {address} on a machine that reaches it, save {what} as {folder / name}, "
        "and run the same command again"
    )
    remedy = f"{error.remedy}; or {hand}" if error.remedy else hand
    return type(error)(
        error.what, where=error.where, expected=error.expected, found=error.found, remedy=remedy
    )


def said(answer: Any, key: str, address: str, kind: type | tuple[type, ...] = str) -> Any:
    """A field of an agency's answer.

    Raises:
        CensusError: the answer has none, or one of another kind.
    """
    value = answer.get(key) if isinstance(answer, Mapping) else None
    if isinstance(value, kind) and value != "":
        return value
    keys = ", ".join(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
    raise CensusError(
        f"the service's answer has no {key}",
        where=address,
        expected=f"{key}, as the agency documents it",
        found=keys[:300] or "nothing",
        remedy="the agency has changed its interface: fetch the file by hand, and see whether "
        "there is a newer version of this package",
    )


def expect_country(answered: str, wanted: Wanted, address: str) -> None:
    """Refuse a file of another country.

    Raises:
        CensusError: it is.
    """
    if answered.upper() != wanted.iso3:
        raise CensusError(
            "the service answers with another country's file",
            where=address,
            expected=wanted.iso3,
            found=answered,
            remedy="see whether the ISO code is right",
        )
