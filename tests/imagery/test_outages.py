"""Providers that are out of reach: told soon, tried again later, and nothing that was done lost."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from popcorn_ml.errors import ImageryError, ProviderDown, Transient
from popcorn_ml.imagery.backoff import Backoff
from popcorn_ml.imagery.build import build_season
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


def build(place: Place, settings: ImagerySettings, folder: Path, sensor: str = "s1"):
    return build_season(
        sensor, "spring", YEAR, place.grid, settings, folder / "out", folder / "scratch"
    )


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
    bad = sorted(i["assets"]["vv"]["href"] for i in web.items if "vv" in i["assets"])[0]
    chosen = {i["assets"]["vv"]["href"] for i in web.items if "vv" in i["assets"]}
    bad = min(href for href in chosen if "20200" in href and "T0348" in href)
    web.fault = lambda path, number: 503 if bad.endswith(path) else None
    report = build(place, remote(web, max_lost_share=1.0), tmp_path)
    assert {one["asset"] for one in report.lost} <= {"VV"}
    assert len(report.lost) <= 1


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
    bad = {
        i["assets"]["vv"]["href"].removeprefix(web.url) for i in web.items if "vv" in i["assets"]
    }
    web.fault = lambda path, number: 503 if path in bad else None
    with pytest.raises(ProviderDown, match="could not be read"):
        build(place, remote(web), tmp_path)
