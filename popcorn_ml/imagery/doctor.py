"""What stands in the way of fetching imagery, and what to type.

examine(settings, secrets, connect=False) -> list[Finding]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.errors import PopcornError

if TYPE_CHECKING:
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings


RTC_LINK = "https://sentinel1euwestrtc.blob.core.windows.net/sentinel1-grd-rtc/x.tif"
"""Any link into the container of Sentinel-1 RTC, to ask for a signature."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is in order, what was seen, what to do if it is not."""

    ok: bool
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        head = f"{'ok  ' if self.ok else 'MISS'} {self.what}"
        return head if self.ok or not self.remedy else f"{head}\n     {self.remedy}"


def examine(settings: ImagerySettings, secrets: Secrets, connect: bool = False) -> list[Finding]:
    """Look at what a country's source needs.

    Args:
        settings: of the country.
        secrets: as given to the sources; nothing of them is shown.
        connect: also ask the service or the catalogue one question.
    """
    from popcorn_ml.imagery.secrets import guarded

    look = {"earthengine": _earth_engine, "stac": _stac, "files": _files}
    if settings.source not in look:
        return [Finding(True, f"source {settings.source}: nothing known to look at")]
    with guarded(secrets):
        found = look[settings.source](settings, secrets, connect)
    return [Finding(f.ok, secrets.scrub(f.what), secrets.scrub(f.remedy)) for f in found]


def _earth_engine(settings: ImagerySettings, secrets: Secrets, connect: bool) -> list[Finding]:
    from popcorn_ml.imagery.backoff import Backoff
    from popcorn_ml.imagery.ee_client import EarthEngine, credentials, project_of

    found = []
    kind = "service account key" if secrets.earthengine_key_file else "application default"
    for name, ask in (
        (f"Google credentials ({kind})", lambda: credentials(secrets)),
        ("Google Cloud project for Earth Engine", lambda: project_of(secrets)),
    ):
        found.append(_tried(name, ask))
    if settings.chosen.mode == "export":
        found.append(
            Finding(
                bool(settings.chosen.bucket),
                f"bucket for exports: {settings.chosen.bucket}",
                "set imagery.earthengine.bucket",
            )
        )
    if connect and all(one.ok for one in found):
        found.append(
            _tried(
                "Earth Engine answers",
                lambda: EarthEngine(secrets, settings.chosen.url, Backoff(1)),
            )
        )
    return found


def _stac(settings: ImagerySettings, secrets: Secrets, connect: bool) -> list[Finding]:
    from popcorn_ml.imagery.choice import open_source
    from popcorn_ml.imagery.stac_items import PROFILES
    from popcorn_ml.sentinel import SENSORS

    source = open_source(settings, secrets, 1)
    try:
        found = [
            _tried(f"catalogue for Sentinel-{sensor[1]}", partial(source.profile, sensor))  # type: ignore[attr-defined]
            for sensor in SENSORS
        ]
    finally:
        source.close()
    chosen = settings.chosen
    if "local" in (chosen.profile, chosen.s1_profile):
        there = chosen.items is not None and (
            "{year}" in str(chosen.items) or Path(chosen.items).is_file()
        )
        found.append(
            Finding(
                there,
                f"item collection {chosen.items}",
                "make the scenes (popcorn demo), or correct imagery.stac.items",
            )
        )
    if "planetary-computer" in (chosen.profile, chosen.s1_profile):
        key = (
            "given"
            if secrets.planetary_computer_key
            else "none (anonymous has lower limits, and Sentinel-1 RTC may ask for one)"
        )
        found.append(Finding(True, f"Planetary Computer subscription key: {key}"))
    if connect:
        url = chosen.url or PROFILES[chosen.profile].url
        if url:
            found.append(_tried(f"catalogue {url} answers", lambda: _landing_page(url)))
        if "planetary-computer" in (chosen.profile, chosen.s1_profile):
            from popcorn_ml.imagery.signing import signer

            sign = signer("planetary-computer", chosen.sign_url, secrets)
            found.append(_tried("Sentinel-1 RTC links can be signed", lambda: sign(RTC_LINK, None)))
    return found


def _landing_page(url: str) -> None:
    import requests

    from popcorn_ml.errors import ImageryError

    try:
        answer = requests.get(url, timeout=20)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise ImageryError(
            f"no answer ({type(error).__name__})", remedy="check the network and the address"
        ) from None


def _files(settings: ImagerySettings, secrets: Secrets, connect: bool) -> list[Finding]:
    chosen = settings.chosen
    if chosen.root is None or chosen.region is None:
        return [
            Finding(
                False,
                "folder and region of the published layout",
                "set imagery.files.root and imagery.files.region",
            )
        ]
    folder = Path(str(chosen.root).split("{year}")[0])
    return [
        Finding(
            folder.is_dir(),
            f"folder {folder}",
            f"put merged/EE/{chosen.region}/... there, or correct imagery.files.root",
        )
    ]


def _tried(what: str, ask: Callable[[], object]) -> Finding:
    try:
        ask()
    except PopcornError as error:
        return Finding(False, f"{what}: {error.what}", error.remedy or "")
    return Finding(True, what)
