"""What services do wrong: one clear error each, and nothing half-done under a file's name."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from popcorn_ml.agencies import fetch_boundaries, fetch_counts
from popcorn_ml.agencies.addresses import is_safe
from popcorn_ml.agencies.web import Web
from popcorn_ml.errors import AgencyDown, CensusError
from popcorn_ml.imagery.backoff import Backoff

from .services import KEY, Cut, Drip, Services, shapefile, zipped
from .test_fetching import QUICK, borders, people


def refused(folder: Path, fetch: Any, *args: Any, **options: Any) -> str:
    """What a fetch that fails says; nothing lies in the folder afterwards."""
    with pytest.raises(CensusError) as error:
        fetch(*args, folder, **options)
    left = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    assert left == []
    text = str(error.value)
    assert f"{folder}/." not in text  # no draft's name
    for part in ("found:", "remedy:"):
        assert part in text
    return text


# The network ------------------------------------------------------------------------------------


def test_404_of_the_service_and_of_the_file(services: Services, tmp_path: Path) -> None:
    text = refused(tmp_path, borders, "geoboundaries")
    assert "geoBoundaries has no level 2 (ADM2) of PLC" in text
    assert "HDX has no dataset cod-ab-plc" in refused(tmp_path, borders, "cod")
    path = services.geoboundaries()
    del services.files[path]
    text = refused(tmp_path, borders, "geoboundaries")
    assert "there is nothing at this address" in text
    assert services.url + path in text
    assert services.asked(path) == 1  # and is not asked again


def test_a_refusal_is_not_asked_again(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.faults[path] = [403, 403, 403]
    assert "HTTP 403" in refused(tmp_path, borders, "geoboundaries")
    assert services.asked(path) == 1


def test_a_service_that_comes_back_is_asked_again(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.faults = {path: [503, 500], "/gb/api/current/gbOpen/PLC/ADM2/": [502]}
    assert borders("geoboundaries", tmp_path).number == 12
    assert services.asked(path) == 3


def test_half_a_file_goes_on_where_it_was_cut(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    body = services.files[path] = services.files[path] + b" " * 200_000
    services.faults[path] = [Cut(50_000), 503, Cut(100_000)]
    fetched = borders("geoboundaries", tmp_path)
    assert fetched.path.read_bytes() == body
    parts = [h.get("Range") for p, h in services.seen if p == path]
    starts = [int(part.removeprefix("bytes=").rstrip("-")) for part in parts if part]
    assert parts[0] is None
    assert starts == [50_000, 50_000, 100_000]  # what is there stays through an answer of nothing


def test_half_a_file_without_parts_begins_anew(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.ranges = False
    services.faults[path] = [Cut(100)]
    assert borders("geoboundaries", tmp_path).path.read_bytes() == services.files[path]


def test_a_file_that_changed_in_between_begins_anew(services: Services, tmp_path: Path) -> None:
    services.files["/file"] = b"old" * 30_000
    services.faults["/file"] = [Cut(60_000)]
    draft, new = tmp_path / "draft", b"new" * 20_000

    def replace(done: int, total: int | None) -> None:
        services.files["/file"] = new

    done = Web(QUICK).download(f"{services.url}/file", draft, 10**6, replace)
    assert draft.read_bytes() == new
    assert done.sha256 == hashlib.sha256(new).hexdigest()


def test_half_a_file_again_and_again_is_given_up(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.faults[path] = [Cut(100)] * 4
    text = refused(tmp_path, borders, "geoboundaries")
    assert "the file came only in part" in text
    assert f"of {len(services.files[path])} bytes" in text
    assert "4 times" in text


def test_a_file_that_hardly_comes_is_given_up(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = services.geoboundaries()
    services.faults[path] = [Drip()] * 4
    monkeypatch.setattr("popcorn_ml.agencies.web.GRACE_S", 0.2)
    begun = time.monotonic()
    text = refused(tmp_path, borders, "geoboundaries")
    assert "less than 1024 bytes a second, 4 times" in text
    assert time.monotonic() - begun < 5


def test_a_compressed_answer_or_one_in_chunks_is_read(services: Services, tmp_path: Path) -> None:
    body = services.files["/file"] = bytes(range(256)) * 2000
    draft = tmp_path / "draft"
    for form in ("gzip", "chunked"):
        services.forms["/file"] = form
        assert Web(QUICK).download(f"{services.url}/file", draft, 10**6).size_bytes == len(body)
        assert draft.read_bytes() == body


def test_a_pause_that_is_asked_for_is_made(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    services.faults[path] = [(429, {"Retry-After": "7"}), (503, {"Retry-After": soon})]
    waited: list[float] = []
    borders("geoboundaries", tmp_path, backoff=Backoff(3, 0.001, sleep=waited.append))
    assert 7.0 in waited
    assert any(25 <= seconds <= 30 for seconds in waited)


def test_a_long_pause_is_said_and_not_waited_for(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.faults[path] = [(429, {"Retry-After": "3600"})]
    begun = time.monotonic()
    text = refused(tmp_path, borders, "geoboundaries")
    assert "come back after 3600 s" in text
    assert time.monotonic() - begun < 10
    services.faults[path] = [429] * 4
    assert "HTTP 429, 4 times" in refused(tmp_path, borders, "geoboundaries")


def test_redirects_are_followed_by_https_only_and_not_for_ever(
    services: Services, tmp_path: Path
) -> None:
    path = services.geoboundaries()
    services.files["/elsewhere?signature=secret"] = services.files[path]
    services.faults[path] = [(302, {"Location": "/elsewhere?signature=secret"})]
    assert borders("geoboundaries", tmp_path / "a").address == services.url + path
    services.faults[path] = [(302, {"Location": "http://example.org/file?signature=secret"})]
    text = refused(tmp_path / "b", borders, "geoboundaries")
    assert "by https only" in text
    assert "secret" not in text
    services.faults[path] = [(302, {"Location": path})] * 9
    assert "from one address to the next" in refused(tmp_path / "b", borders, "geoboundaries")


def test_an_answer_from_elsewhere_does_not_lead_to_this_machine() -> None:
    assert is_safe("https://example.org/", from_here=False)
    assert not is_safe("http://127.0.0.1/", from_here=False)
    assert not is_safe("https://localhost/", from_here=False)
    assert not is_safe("http://example.org/")
    assert not is_safe("file:///etc/passwd")


def test_nor_does_a_link_in_it(services: Services, tmp_path: Path) -> None:
    services.files["/file"] = b"of this machine"
    web = Web(Backoff(0))
    with pytest.raises(AgencyDown):
        web.json("https://nowhere.invalid/answer")
    with pytest.raises(CensusError, match="by https only"):
        web.download(f"{services.url}/file", tmp_path / "draft", 1000)
    assert services.seen == []


def test_terms_are_kept_in_a_line(services: Services, tmp_path: Path) -> None:
    services.geoboundaries(boundaryLicense="Terms:\n\n * see\x1b[2J " + "x" * 1000)
    licence = borders("geoboundaries", tmp_path).licence
    assert licence.startswith("Terms: * see[2J xxx")
    assert len(licence) < 310


def test_more_than_such_a_file_has_is_refused(services: Services, tmp_path: Path) -> None:
    services.files["/big"] = b"x" * 5000
    draft = tmp_path / "draft"
    draft.touch()
    with pytest.raises(CensusError, match="larger than such a file is"):
        Web(QUICK).download(services.url + "/big", draft, 4999)
    assert draft.stat().st_size == 0
    Web(QUICK).download(services.url + "/big", draft, 5000)
    services.forms["/big"] = "chunked"  # which says no size before
    with pytest.raises(CensusError, match="larger than such a file is"):
        Web(QUICK).download(services.url + "/big", draft, 4999)


def test_bytes_are_told_while_they_come(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    told: list[tuple[int, int | None]] = []
    borders("geoboundaries", tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(services.files[path]),) * 2


# What comes is not what it should be ------------------------------------------------------------


def test_a_size_or_a_hash_that_is_another(services: Services, tmp_path: Path) -> None:
    path = services.cod_counts(size=17)
    text = refused(tmp_path, people, "cod")
    assert "not the size that the agency states" in text
    assert "17 bytes" in text
    services.cod_counts(hash="0" * 32)
    text = refused(tmp_path, people, "cod")
    assert "its hash is another" in text
    assert f"by hand: open {services.url}/hdx/dataset/cod-ps-plc" in text
    assert hashlib.md5(services.files[path]).hexdigest() in text
    services.cod_counts(hash=hashlib.md5(services.files[path]).hexdigest())
    assert people("cod", tmp_path).number == 12


def test_a_web_page_instead_of_json_or_of_a_file(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    page = b"<!DOCTYPE html><html><head><title>Down for maintenance</title></head></html>"
    services.faults["/gb/api/current/gbOpen/PLC/ADM2/"] = [page]
    text = refused(tmp_path, borders, "geoboundaries")
    assert "not JSON" in text
    assert "Down for maintenance" in text
    services.faults[path] = [page]
    text = refused(tmp_path, borders, "geoboundaries")
    assert "a web page came instead of the file" in text
    assert "Down for maintenance" in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "no boundaryISO"),
        (b"null", "no boundaryISO"),
        (b'{"boundaryISO": "UGA"}', "another country"),
        (b'{"boundaryISO": "PLC", "boundaryYearRepresented": 2019}', "no gjDownloadURL"),
    ],
)
def test_an_answer_that_has_changed(
    services: Services, tmp_path: Path, body: bytes, said: str
) -> None:
    services.files["/gb/api/current/gbOpen/PLC/ADM2/"] = body
    assert said in refused(tmp_path, borders, "geoboundaries")


def test_columns_that_have_changed(services: Services, tmp_path: Path) -> None:
    services.cod_counts(["r", "rc", "district", "district_code", "f", "m", "population_total"])
    text = refused(tmp_path, people, "cod")
    assert "not the columns that the agency documents" in text
    assert "ADM2_PCODE (or admin2Pcode) and T_TL" in text
    assert "district_code" in text
    services.worldpop(["GID", "ISO", *(f"Y{year}" for year in range(2000, 2021))])
    assert "GID and P_2000 to P_2020" in refused(tmp_path, people, "worldpop")
    services.us_census("TOTAL")
    text = refused(tmp_path, lambda folder: people("us_census", folder, "PRI"))
    assert "GEOID, NAME and P1_001N" in text
    path = services.geoboundaries()
    services.files[path] = services.files[path].replace(b"shapeID", b"unitID")
    text = refused(tmp_path, borders, "geoboundaries")
    assert "shapeID and shapeName" in text
    assert "unitID" in text


def test_a_dataset_without_the_level(services: Services, tmp_path: Path) -> None:
    services.cod_counts()
    text = refused(tmp_path, lambda folder: people("cod", folder, level=3))
    assert "has no table of level 3" in text
    assert "plc_admpop_adm2_2020.csv (CSV)" in text
    services.cod_boundaries()
    text = refused(tmp_path, lambda folder: borders("cod", folder, level=3))
    assert "no file of level 3" in text
    assert "plc_admin2.geojson" in text


def test_a_file_of_another_level_than_its_name_says(services: Services, tmp_path: Path) -> None:
    services.cod_counts(["A", "B", "ADM1_EN", "ADM1_PCODE", "F_TL", "M_TL", "T_TL"])
    text = refused(tmp_path, people, "cod")
    assert "the file is of another level" in text
    assert "try --level 1" in text
    path = services.cod_boundaries()
    with zipfile.ZipFile(io.BytesIO(services.files[path])) as archive:
        upper = archive.read("plc_admin1.geojson")
    services.cod_boundaries({"plc_admin2.geojson": upper})
    text = refused(tmp_path, borders, "cod")
    assert "P-codes of level 2" in text
    assert "adm1_pcode" in text


def test_an_archive_that_would_write_outside_its_folder(services: Services, tmp_path: Path) -> None:
    services.cod_boundaries({"../plc_admin2.geojson": b"{}"})
    text = refused(tmp_path / "kept", borders, "cod")
    assert "written outside its folder" in text
    assert not (tmp_path / "plc_admin2.geojson").exists()


def test_an_archive_that_is_none_or_half_one(services: Services, tmp_path: Path) -> None:
    path = services.cod_boundaries()
    whole = services.files[path]
    for body in (b"{}", whole[: len(whole) // 2]):
        services.files[path] = body
        resource = services._resource("plc_admin_boundaries.geojson.zip", "GeoJSON", path)
        services._package("cod-ab-plc", [resource])
        assert "the archive cannot be opened" in refused(tmp_path, borders, "cod")


def test_an_archive_that_unpacks_to_far_more(services: Services, tmp_path: Path) -> None:
    services.cod_boundaries({"plc_admin2.geojson": b" " * (40 * 1024**2)})
    assert "a zip bomb" in refused(tmp_path, borders, "cod")


def test_half_a_document_whose_size_nobody_stated(services: Services, tmp_path: Path) -> None:
    path = services.geoboundaries()
    services.files[path] = services.files[path][:400]
    text = refused(tmp_path, borders, "geoboundaries")
    assert services.url + path in text


def test_a_shapefile_that_lacks_a_part(services: Services, tmp_path: Path) -> None:
    import geopandas as gpd
    import shapely

    files, _ = services.us_census()
    frame = gpd.GeoDataFrame({"STATEFP": ["72"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4269)
    body = shapefile(frame, "cb")
    services.files[files] = body
    text = refused(tmp_path, lambda folder: borders("tiger", folder, "PRI", year=2020))
    assert "GEOID, STATEFP and NAME" in text
    services.files[files] = zipped({"cb.shp": b"\x00\x00\x27\x0a" + bytes(96)})
    text = refused(tmp_path, lambda folder: borders("tiger", folder, "PRI", year=2020))
    assert "missing: .dbf, .shx" in text


# The key ----------------------------------------------------------------------------------------


def test_the_data_api_says_that_it_wants_a_key(services: Services, tmp_path: Path) -> None:
    services.us_census()
    services.key = KEY
    text = refused(tmp_path, lambda folder: people("us_census", folder, "PRI"))
    assert "the data API asks for a key" in text
    assert "POPCORN_US_CENSUS_KEY" in text
    assert "key_signup" in text


@pytest.mark.parametrize("fault", [403, 503, Cut(10), b"<html><title>Invalid Key</title></html>"])
def test_the_key_is_in_no_error_and_no_log(
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Any,
) -> None:
    _, asked = services.us_census()
    monkeypatch.setenv("CENSUS_API_KEY", KEY)
    services.faults[asked] = [fault] * 4
    # Others in this process may have turned it down, or off.
    monkeypatch.setattr(logging.getLogger("urllib3.connectionpool"), "disabled", False)
    loud = [caplog.at_level(logging.DEBUG, name) for name in (None, "urllib3.connectionpool")]
    with loud[0], loud[1]:
        text = refused(tmp_path, lambda folder: people("us_census", folder, "PRI"))
    assert any(KEY in path for path, _ in services.seen)
    assert caplog.records
    assert KEY not in text
    assert KEY not in caplog.text


def test_the_key_does_not_go_to_another_host(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked = services.us_census()
    monkeypatch.setenv("CENSUS_API_KEY", KEY)
    other = Services()
    other.files["/elsewhere"] = services.files[asked]
    services.faults[asked] = [(302, {"Location": f"{other.url}/elsewhere"})]
    assert people("us_census", tmp_path, "PRI").number == 10
    other.close()
    assert [path for path, _ in other.seen] == ["/elsewhere"]


def test_no_network_is_over_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPCORN_MIRRORS", "hdx=http://127.0.0.1:9")
    waited: list[float] = []
    with pytest.raises(AgencyDown, match="could not be reached"):
        fetch_counts(
            "cod", "PLC", level=2, year=2020, folder=tmp_path,
            backoff=Backoff(4, 1.0, 20.0, sleep=waited.append),
        )  # fmt: skip
    assert sum(waited) < 60
    with pytest.raises(AgencyDown) as error:
        fetch_boundaries("cod", "PLC", level=2, year=2020, folder=tmp_path, backoff=QUICK)
    assert json.dumps(str(error.value))
