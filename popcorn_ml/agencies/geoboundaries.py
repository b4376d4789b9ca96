"""geoBoundaries: boundaries of every country, by an API that names the file and its terms.

Documented at https://www.geoboundaries.org/api.html. Its links lead to GitHub, where a large file
may be a pointer to another place, which then states the file's size and sha256.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from popcorn_ml.agencies.addresses import Addresses
from popcorn_ml.agencies.agency import Agency, Offer, Reading, expect_country, said
from popcorn_ml.agencies.fetched import Wanted
from popcorn_ml.agencies.polygons import read_polygons
from popcorn_ml.agencies.web import NotThere, Web
from popcorn_ml.errors import CensusError

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\s+oid sha256:([0-9a-f]{64})\s+size (\d+)\s*"
)
_RAW = re.compile(r"/([^/]+)/([^/]+)/(?:raw/)?([^/]+)/(.+)")
"""Owner, repository, commit and path of a file's address."""


class GeoBoundaries(Agency):
    """The open release (gbOpen), in full resolution."""

    key, title = "geoboundaries", "geoBoundaries, gbOpen"
    licence = "geoBoundaries gbOpen: CC BY 4.0, or as its source states"

    def __init__(self, addresses: Addresses) -> None:
        self._base, self._lfs = addresses.geoboundaries, addresses.lfs

    def _api(self, wanted: Wanted) -> str:
        return f"{self._base}/api/current/gbOpen/{wanted.iso3}/ADM{wanted.level}/"

    def _name(self, wanted: Wanted) -> str:
        return f"geoboundaries-{wanted.iso3}-ADM{wanted.level}.geojson"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        return re.compile(re.escape(self._name(wanted)))

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        what = "the file that `gjDownloadURL` in this answer names"
        return self._api(wanted), what, self._name(wanted)

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        address = self._api(wanted)
        try:
            answer = web.json(address)
        except NotThere as error:
            raise NotThere(
                f"geoBoundaries has no level {wanted.level} (ADM{wanted.level}) of {wanted.iso3}",
                where=address,
                found=error.found,
                remedy="try another --level, or another source of boundaries",
            ) from error
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        expect_country(said(answer, "boundaryISO", address), wanted, address)
        given = said(answer, "boundaryYearRepresented", address, (str, int))
        year = re.match(r"\d{4}", str(given))
        stated = {
            name: answer[name]
            for name in (
                "boundaryID",
                "boundarySource",
                "licenseSource",
                "admUnitCount",
                "buildDate",
            )
            if name in answer
        }
        return Offer(
            address=said(answer, "gjDownloadURL", address),
            name=self._name(wanted),
            licence=said(answer, "boundaryLicense", address),
            year=int(year[0]) if year else None,
            stated=stated,
        )

    def further(self, came: Path, offer: Offer) -> Offer | None:
        pointer = _pointer(came)
        place = _RAW.fullmatch(urlsplit(offer.address).path)
        if pointer is None or place is None:
            return None
        owner, repository, commit, path = place.groups()
        return replace(
            offer,
            address=f"{self._lfs}/{owner}/{repository}/{commit}/{path}",
            digest=pointer[1].decode(),
            size_bytes=int(pointer[2]),
        )

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        if _pointer(path) is not None:
            raise CensusError(
                "this is not the file but a pointer to it",
                where=path,
                expected="GeoJSON",
                found="a pointer of Git LFS",
                remedy=f"save the file with a browser, or fetch it below {self._lfs}",
            )
        return read_polygons(path, "geoboundaries", "shapeID and shapeName", {})


def _pointer(path: Path) -> re.Match[bytes] | None:
    """What a file says if it is no more than a pointer to the file."""
    with path.open("rb") as stream:
        return _POINTER.fullmatch(stream.read(512))
