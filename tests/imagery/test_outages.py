"""Providers that are out of reach: told soon, tried again later, and nothing that was done lost."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from popcorn_ml.errors import ImageryError, ProviderDown, Transient
from popcorn_ml.imagery.backoff import Backoff
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.nearest import lonlat_bounds
from popcorn_ml.imagery.remote import DOWN_AFTER
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.signing import TOKEN_RETRIES, signer
from tests.imagery.conftest import YEAR, Place
from tests.imagery.web_server import WebServer

CONTAINER = "https://account.blob.core.windows.net/container"


def remote(web: WebServer, **options) -> ImagerySettings:
    stac = {
        "profile": "planetary-computer",
        "url": web.api,
        "sign_url": web.sas,
        "retries": 2,
        "first_wait_s": 0.001,
        "pool": 4,
    }
    return ImagerySettings.parse({"source": "stac", "stac": stac, "tile_px": 64, **options})


def build(place: Place, settings: ImagerySettings, folder: Path, sensor: str = "s1", **options):
    return build_season(
        sensor, "spring", YEAR, place.grid, settings, folder / "out", folder / "scratch", **options
    )


def paths(web: WebServer, key: str) -> set[str]:
    """Links of one band."""
    return {item["assets"][key]["href"] for item in web.items if key in item["assets"]}


@pytest.fixture(autouse=True)
def fresh_tokens():
    """The provider's library keeps tokens for the whole process."""
    from planetary_computer import sas

    sas.TOKEN_CACHE.clear()
    yield
    sas.TOKEN_CACHE.clear()


@pytest.mark.parametrize("how", ["refuses connections", "answers 503", "hangs up"])
def test_a_token_service_out_of_reach(
    how: str, web: WebServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A few tries, each told; then every link fails at once until the failure is old."""
    waited: list[float] = []
    url = "http://127.0.0.1:9/sas" if how == "refuses connections" else web.sas
    web.token_status = 503 if how == "answers 503" else "cut"
    sign = signer(
        "planetary-computer", url, Secrets(), Backoff(TOKEN_RETRIES, 1.0, sleep=waited.append)
    )
    with caplog.at_level(logging.WARNING), pytest.raises(ProviderDown, match="could not be signed"):
        sign(f"{CONTAINER}/a.tif", None)
    assert len(waited) == TOKEN_RETRIES
    assert sum(waited) < 12
    assert sum("does not sign links" in r.getMessage() for r in caplog.records) == TOKEN_RETRIES
    asked = sum(web.seen.values())
    for link in ("b.tif", "c.tif"):
        with pytest.raises(ProviderDown):
            sign(f"{CONTAINER}/{link}", None)
    assert len(waited) == TOKEN_RETRIES
    assert sum(web.seen.values()) == asked
    later = time.monotonic() + 1000
    monkeypatch.setattr("popcorn_ml.imagery.signing.time.monotonic", lambda: later)
    web.token_status = 200
    if url == web.sas:
        assert "sig=" in sign(f"{CONTAINER}/d.tif", None)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"token": 5}', b'{"token": "sig=canary"}'])
def test_a_token_service_that_answers_something_else(body: bytes, web: WebServer) -> None:
    web.token_body = body
    sign = signer("planetary-computer", web.sas, Secrets(), Backoff(3, 0.001))
    with pytest.raises(ImageryError, match="could not be signed") as failure:
        sign(f"{CONTAINER}/a.tif", None)
    assert not isinstance(failure.value, Transient)
    assert "canary" not in str(failure.value)
    assert sum(web.seen.values()) == 1


@pytest.mark.parametrize("sensor", ["s1", "s2"])
@pytest.mark.parametrize("fault", [503, "cut"])
def test_storage_that_is_down_is_told_after_a_few_assets(
    place: Place, web: WebServer, tmp_path: Path, fault: object, sensor: str
) -> None:
    """Not after every asset of every tile has been tried to the end."""
    web.fault = lambda path, number: fault
    with pytest.raises(ProviderDown) as failure:
        build(place, remote(web), tmp_path, sensor)
    assert isinstance(failure.value, Transient), "Dagster tries the season again later"
    assert web.asset_requests() <= 3 * (DOWN_AFTER + 4)
    web.fault = lambda path, number: None
    assert build(place, remote(web), tmp_path, sensor).lost == []


def test_storage_that_goes_down_on_the_way(place: Place, web: WebServer, tmp_path: Path) -> None:
    """What was finished before is kept, and not asked for again."""
    whole = build(place, remote(web), tmp_path / "whole")
    total, most = web.asset_requests(), 40
    web.fault = lambda path, number: 503 if web.asset_requests() > total + most else None
    with pytest.raises(ProviderDown):
        build(place, remote(web), tmp_path)
    assert web.asset_requests() <= total + most + 3 * (DOWN_AFTER + 4)
    web.fault = lambda path, number: None
    report = build(place, remote(web), tmp_path)
    assert report.tiles["resumed"] >= 1
    assert (report.scenes, report.lost) == (whole.scenes, [])


def test_one_asset_that_always_fails_is_lost_alone(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    """It is no sign of a provider that is down, in whatever tile it lies."""
    bad = min(link for link in paths(web, "vv") if "20200309" in link)
    web.fault = lambda path, number: 503 if bad.endswith(path) else None
    report = build(place, remote(web, max_lost_share=1.0), tmp_path)
    assert [one["asset"] for one in report.lost] == ["VV"]


def test_only_tiles_that_lost_something_are_fetched_again(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    """And a tile keeps what it had if even less is to be had the next time."""
    whole = build(place, remote(web), tmp_path / "whole")
    bad = {link.removeprefix(web.url) for link in paths(web, "vh") if "20200309" in link}
    done = web.seen.copy()
    web.fault = lambda path, number: 404 if path in bad and number == done[path] + 1 else None
    report = build(place, remote(web), tmp_path, keep_work=True)
    assert len(report.lost) == 1
    assert 0 < report.lost_share < 0.01
    web.fault = lambda path, number: 404 if "20200309" in path else None
    again = build(place, remote(web), tmp_path, keep_work=True)
    assert (again.lost, again.lost_share) == (report.lost, report.lost_share)
    web.fault = lambda path, number: None
    last = build(place, remote(web), tmp_path)
    assert last.tiles["fetched"] == 1
    assert (last.lost, last.lost_share) == ([], 0)
    assert last.bands == whole.bands
    assert not list((tmp_path / "scratch").iterdir())


def test_a_mended_catalogue_changes_the_tiles_that_it_concerns(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    """A scene that could not be used is looked for again; the tiles it does not reach stay."""
    west, south, _, north = lonlat_bounds(place.grid)
    chosen = next(i for i in web.items if i["id"] in used(place, web, tmp_path))
    chosen["bbox"] = [west, south, west + 0.0001, north]  # reaches the first column of tiles
    whole = build(place, remote(web), tmp_path / "whole")
    state = chosen["properties"].pop("sat:orbit_state")
    report = build(place, remote(web, max_lost_share=0.5), tmp_path, keep_work=True)
    assert [one["scene"] for one in report.lost] == [chosen["id"]]
    chosen["properties"]["sat:orbit_state"] = state
    last = build(place, remote(web, max_lost_share=0.5), tmp_path)
    assert last.lost == []
    assert last.tiles["resumed"] == 12
    assert (last.scenes, last.bands) == (whole.scenes, whole.bands)


def used(place: Place, web: WebServer, tmp_path: Path) -> set[str]:
    """Ids of the season's scenes."""
    return {scene["id"] for scene in build(place, remote(web), tmp_path / "used").scenes}


def test_losses_are_judged_while_tiles_come_in(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    """What is gone for good is refused before the last tile, and is no provider's outage."""
    build(place, remote(web), tmp_path / "whole")
    whole = web.asset_requests()
    web.fault = lambda path, number: 404
    with pytest.raises(ImageryError, match="could not be read") as failure:
        build(place, remote(web), tmp_path)
    assert not isinstance(failure.value, Transient)
    assert web.asset_requests() - whole < whole / 4
    assert "max_lost_share" in str(failure.value)


def test_a_provider_that_fails_half_of_the_time_is_tried_again_later(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    bad = {link.removeprefix(web.url) for link in paths(web, "vv")}
    web.fault = lambda path, number: 503 if path in bad else None
    with pytest.raises(ProviderDown, match="could not be read"):
        build(place, remote(web), tmp_path)
