"""Each agency against its service: what is kept, what is recorded, and what the census reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from popcorn_ml.agencies import BOUNDARIES, COUNTS, Fetched, fetch_boundaries, fetch_counts
from popcorn_ml.agencies.addresses import Addresses, addresses
from popcorn_ml.agencies.own import own_counts
from popcorn_ml.agencies.section import Joining, census_section, joining
from popcorn_ml.census.recognise import Given
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import CensusError, ConfigError
from popcorn_ml.imagery.backoff import Backoff
from tests.census import place

from .services import KEY, PEOPLE, Services, table

QUICK = Backoff(retries=3, first_s=0.001)


def borders(source: str, folder: Path, iso3: str = "PLC", **options: Any) -> Fetched:
    given: dict[str, Any] = {"level": 2, "year": 2021, "folder": folder, "backoff": QUICK}
    return fetch_boundaries(source, iso3, **{**given, **options})


def people(source: str, folder: Path, iso3: str = "PLC", **options: Any) -> Fetched:
    given: dict[str, Any] = {"level": 2, "year": 2021, "folder": folder, "backoff": QUICK}
    return fetch_counts(source, iso3, **{**given, **options})


def joined(boundaries: Fetched, counts: Fetched, folder: Path) -> Joining:
    section = census_section(boundaries, counts, "adm2")
    CensusSettings.model_validate(section)
    return joining(section, folder, counts.year)


def record(fetched: Fetched) -> dict[str, Any]:
    return json.loads(fetched.path.with_name(fetched.path.name + ".source.json").read_text())


# What comes -------------------------------------------------------------------------------------


def test_cod_is_fetched_read_and_joined_by_p_code(services: Services, tmp_path: Path) -> None:
    archive, csv = services.cod_boundaries(), services.cod_counts()
    counts = people("cod", tmp_path)
    boundaries = borders("cod", tmp_path)
    assert boundaries.path.read_bytes() == services.files[archive]
    assert counts.path.read_bytes() == services.files[csv]
    assert (boundaries.number, counts.number, counts.year) == (12, 12, 2020)
    assert counts.stated["people"] == PEOPLE
    assert boundaries.settings["member"] == "plc_admin2.geojson"
    found = joined(boundaries, counts, tmp_path)
    assert (found.units, found.counted, found.lost, found.people) == (12, 12, 0, PEOPLE)
    assert found.usable
    kept = record(counts)
    assert kept["sha256"] == hashlib.sha256(services.files[csv]).hexdigest() == counts.sha256
    assert kept["address"] == services.url + csv
    assert kept["licence"].startswith("Creative Commons Attribution for Intergovernmental")
    assert kept["retrieved"] == counts.retrieved.isoformat()
    assert kept["stated"]["source"] == "Statistics Place"


def test_an_earlier_year_takes_the_latest_counts_before_it(
    services: Services, tmp_path: Path
) -> None:
    services.cod_counts()
    assert people("cod", tmp_path, year=2019).year == 2019
    assert people("cod", tmp_path, year=1990).year == 2019
    assert people("cod", tmp_path, year=2020).year == 2020


def test_an_older_spelling_of_cod_columns_is_read(services: Services, tmp_path: Path) -> None:
    services.cod_boundaries()
    services.cod_counts(
        ["admin1Name_fr", "admin1Pcode", "admin2Name_fr", "admin2Pcode", "F_TL", "M_TL", "T_TL"]
    )
    counts = people("cod", tmp_path)
    columns = counts.settings["columns"]
    assert (columns["id"], columns["name"]) == ("admin2Pcode", "admin2Name_fr")
    assert joined(borders("cod", tmp_path), counts, tmp_path).counted == 12


def test_geoboundaries_joins_counts_of_another_agency_by_name(
    services: Services, tmp_path: Path
) -> None:
    path = services.geoboundaries()
    services.cod_counts()
    boundaries, counts = borders("geoboundaries", tmp_path), people("cod", tmp_path)
    assert boundaries.path.read_bytes() == services.files[path]
    assert boundaries.licence.endswith("(CC BY 4.0)")
    assert (boundaries.year, boundaries.number) == (2019, 12)
    assert record(boundaries)["stated"]["boundaryID"] == "PLC-ADM2-1"
    section = census_section(boundaries, counts, "adm2")["levels"]["adm2"]
    assert (section["join"], section["counts"]["kind"]) == ("name", "projection")
    found = joined(boundaries, counts, tmp_path)
    assert (found.counted, found.lost, found.usable) == (12, 0, True)


def test_a_pointer_of_a_large_file_is_followed_and_its_hash_compared(
    services: Services, tmp_path: Path
) -> None:
    path = services.geoboundaries()
    body = services.files[path]
    digest = hashlib.sha256(body).hexdigest()
    services.files[path] = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(body)}\n"
    ).encode()
    behind = "/lfs" + path.replace("/raw/", "/")
    services.files[behind] = body
    boundaries = borders("geoboundaries", tmp_path)
    assert boundaries.address == services.url + behind
    assert boundaries.path.read_bytes() == body
    services.files[behind] = body[:-1] + b" "
    with pytest.raises(CensusError, match="its hash is another"):
        borders("geoboundaries", tmp_path, again=True)
    assert boundaries.path.read_bytes() == body


def test_puerto_rico_from_the_census_bureau(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, asked = services.us_census()
    services.key = KEY
    monkeypatch.setenv("POPCORN_US_CENSUS_KEY", KEY)
    counts = people("us_census", tmp_path, "PRI")
    boundaries = borders("tiger", tmp_path, "PRI", year=counts.year)
    assert (counts.year, counts.number, boundaries.number) == (2020, 10, 10)
    assert boundaries.address == services.url + files
    assert boundaries.settings["where"] == {"STATEFP": ["72"]}
    found = joined(boundaries, counts, tmp_path)
    assert (found.counted, found.units, found.lost) == (10, 10, 0)
    # The key opened the door, and is nowhere.
    assert counts.address == services.url + asked
    assert any(KEY in path for path, _ in services.seen)
    for kept in tmp_path.iterdir():
        assert KEY.encode() not in kept.read_bytes()


def test_the_states_without_the_territories(services: Services, tmp_path: Path) -> None:
    _, asked = services.us_census()
    of_one = json.loads(services.files[asked])
    of_all = [*of_one, ["Autauga County, Alabama", "58805", "01", "021"]]
    of_all += [["Baldwin County, Alabama", "231767", "01", "023"]]
    services.files[asked.replace("state:72", "state:*")] = json.dumps(of_all).encode()
    counts = people("us_census", tmp_path, "USA")
    boundaries = borders("tiger", tmp_path, "USA", year=2020)
    assert (counts.number, counts.stated["people"]) == (2, 58805 + 231767)
    assert joined(boundaries, counts, tmp_path).counted == boundaries.number == 2


@pytest.mark.parametrize(
    ("iso3", "level", "year", "file", "request_"),
    [
        ("USA", 1, 2023, "GENZ2023/shp/cb_2023_us_state_500k.zip",
         "2020/dec/pl?get=NAME,P1_001N&for=state:*"),
        ("PRI", 1, 2012, "GENZ2014/shp/cb_2014_us_state_500k.zip",
         "2010/dec/sf1?get=NAME,P001001&for=state:72"),
        ("PRI", 3, 2020, "GENZ2020/shp/cb_2020_72_tract_500k.zip",
         "2020/dec/pl?get=NAME,P1_001N&for=tract:*&in=state:72&in=county:*"),
        ("PRI", 4, 2020, "GENZ2020/shp/cb_2020_72_bg_500k.zip",
         "2020/dec/pl?get=NAME,P1_001N&for=block%20group:*&in=state:72&in=county:*"),
    ],
)  # fmt: skip
def test_what_the_census_bureau_is_asked_for(
    services: Services, tmp_path: Path, iso3: str, level: int, year: int, file: str, request_: str
) -> None:
    for fetch in (borders, people):
        with pytest.raises(CensusError):
            fetch("tiger" if fetch is borders else "us_census", tmp_path, iso3, level=level,
                  year=year)  # fmt: skip
    assert [path for path, _ in services.seen] == [f"/tiger/{file}", f"/data/{request_}"]


def test_a_shapefile_archive_of_all_levels_and_a_workbook(
    services: Services, tmp_path: Path
) -> None:
    """As HDX has them of some countries: no GeoJSON, no CSV."""
    services.cod_boundaries_as_shapefiles()
    services.cod_counts_as_workbook()
    boundaries, counts = borders("cod", tmp_path), people("cod", tmp_path)
    assert boundaries.settings["member"] == "plc_adm2_2006_nisr.shp"
    assert (counts.path.suffix, counts.settings["sheet"]) == (".xlsx", "plc_admpop_adm2_2020")
    found = joined(boundaries, counts, tmp_path)
    assert (found.counted, found.lost, found.people) == (12, 0, PEOPLE)


def test_worldpop_joins_itself_and_nothing_else(services: Services, tmp_path: Path) -> None:
    services.worldpop()
    services.geoboundaries()
    boundaries, counts = borders("worldpop", tmp_path), people("worldpop", tmp_path)
    assert (boundaries.number, counts.year, counts.stated["people"]) == (12, 2020, PEOPLE)
    found = joined(boundaries, counts, tmp_path)
    assert (found.counted, found.lost, found.people) == (12, 0, PEOPLE)
    other = borders("geoboundaries", tmp_path)
    with pytest.raises(ConfigError, match="they join each other alone"):
        census_section(other, counts, "adm2")


def test_what_does_not_join_is_said(services: Services, tmp_path: Path) -> None:
    services.cod_boundaries()
    path = services.cod_counts()
    lines = services.files[path].decode().replace("PL0012", "PL9912").replace("Łuna", "Elsewhere")
    services.files[path] = lines.encode()
    services._package("cod-ps-plc", [services._resource("plc_admpop_adm2_2020.csv", "CSV", path)])
    found = joined(borders("cod", tmp_path), people("cod", tmp_path), tmp_path)
    assert (found.counted, found.lost) == (11, 1207)
    assert not found.usable
    text = "\n".join(found.lines())
    assert "11 of 12 units" in text
    assert "1,207 people without a unit" in text
    assert "PL9912" in text


def test_a_table_of_ones_own_is_recognised(services: Services, tmp_path: Path) -> None:
    services.geoboundaries()
    services.worldpop()
    boundaries = borders("geoboundaries", tmp_path / "kept")
    own = tmp_path / "counts.csv"
    rows = [[u.name, 7, u.people] for u in place.units()]
    own.write_bytes(table([["district", "rank", "people"], *rows]))
    counts, beside, said = own_counts(own, boundaries, Given(counts_year=2020))
    assert counts.settings["columns"] == {"name": "district", "people": "people"}
    assert beside.settings["columns"] == {"name": "shapeName"}
    assert "'shapeName' joins 'district' of counts.csv" in said[0]
    section = census_section(beside, counts, "adm2")
    assert "licence" not in section["levels"]["adm2"]["counts"]
    assert joining(section, [tmp_path / "kept", tmp_path], 2020).counted == 12
    with pytest.raises(CensusError, match="of which year"):
        own_counts(own, boundaries, Given())
    with pytest.raises(ConfigError, match="no names"):
        own_counts(own, borders("worldpop", tmp_path / "kept"), Given(counts_year=2020))


# Once, again, by hand ---------------------------------------------------------------------------


def test_nothing_is_fetched_twice_unless_asked(services: Services, tmp_path: Path) -> None:
    services.geoboundaries()
    first = borders("geoboundaries", tmp_path)
    asked = len(services.seen)
    held = borders("geoboundaries", tmp_path)
    assert len(services.seen) == asked
    assert (first.anew, held.anew) == (True, False)
    assert (held.path, held.sha256, held.settings) == (first.path, first.sha256, first.settings)
    borders("geoboundaries", tmp_path, again=True)
    assert len(services.seen) == asked + 2


@pytest.mark.parametrize(
    ("first", "then", "fetched"),
    [
        (2021, 2020, False),  # 2020 is what is the latest before either
        (2019, 2021, True),  # there may be newer counts than 2019
        (2021, 2019, True),  # there may be older ones
        (2900, 2950, False),  # what had not been counted yet: only --again looks for it
        (2021, 2021, False),
    ],
)
def test_another_year_is_fetched_where_it_may_be_another_file(
    services: Services, tmp_path: Path, first: int, then: int, fetched: bool
) -> None:
    services.cod_counts()
    people("cod", tmp_path, year=first)
    asked = len(services.seen)
    assert people("cod", tmp_path, year=then).year == (2019 if then == 2019 else 2020)
    assert (len(services.seen) > asked) is fetched


def test_a_file_changed_afterwards_is_said(services: Services, tmp_path: Path) -> None:
    services.geoboundaries()
    first = borders("geoboundaries", tmp_path)
    first.path.write_bytes(first.path.read_bytes() + b" ")
    with pytest.raises(CensusError, match="changed since it was fetched"):
        borders("geoboundaries", tmp_path)
    assert borders("geoboundaries", tmp_path, again=True).sha256 == first.sha256


@pytest.mark.parametrize(
    ("source", "iso3", "page", "name"),
    [
        ("geoboundaries", "PLC", "/gbOpen/PLC/ADM2/", "geoboundaries-PLC-ADM2.geojson"),
        ("cod", "PLC", "/hdx/dataset/cod-ab-plc", "cod-ab-PLC-adm2.zip"),
        ("tiger", "PRI", "/GENZ2020/shp/cb_2020_us_county_500k.zip", "cb_2020_us_county_500k.zip"),
        ("worldpop", "PLC", "plc_subnational_admin_2000_2020.tif", "worldpop-PLC-units.tif"),
    ],
)
def test_without_a_network_a_person_can_put_boundaries_there(
    services: Services, tmp_path: Path, source: str, iso3: str, page: str, name: str
) -> None:
    paths = {
        "geoboundaries": services.geoboundaries, "cod": services.cod_boundaries,
        "tiger": lambda: services.us_census()[0], "worldpop": lambda: services.worldpop()[0],
    }  # fmt: skip
    body = services.files[paths[source]()]
    services.close()
    with pytest.raises(CensusError) as refused:
        borders(source, tmp_path, iso3, year=2020)
    text = str(refused.value)
    assert page in text
    assert str(tmp_path / name) in text
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).write_bytes(body)
    taken = borders(source, tmp_path, iso3, year=2020)
    assert taken.by_hand
    assert taken.anew
    assert taken.sha256 == hashlib.sha256(body).hexdigest() == record(taken)["sha256"]
    assert taken.licence
    assert not borders(source, tmp_path, iso3, year=2020).anew


@pytest.mark.parametrize("source", ["cod", "worldpop", "us_census"])
def test_without_a_network_a_person_can_put_counts_there(
    services: Services, tmp_path: Path, source: str
) -> None:
    paths = {
        "cod": services.cod_counts, "worldpop": lambda: services.worldpop()[1],
        "us_census": lambda: services.us_census()[1],
    }  # fmt: skip
    body = services.files[paths[source]()]
    services.close()
    iso3 = "PRI" if source == "us_census" else "PLC"
    with pytest.raises(CensusError) as refused:
        people(source, tmp_path, iso3)
    text = str(refused.value)
    place_ = text.partition(f" as {tmp_path}/")[2].partition(",")[0]
    (tmp_path / place_.replace("YEAR", "2020")).write_bytes(body)
    taken = people(source, tmp_path, iso3)
    assert taken.by_hand
    assert taken.year == 2020
    assert taken.number in (10, 12)


# Where ------------------------------------------------------------------------------------------


def test_the_sources_have_names_and_https() -> None:
    assert set(BOUNDARIES) == {"geoboundaries", "cod", "tiger", "worldpop"}
    assert set(COUNTS) == {"cod", "worldpop", "us_census"}
    assert all(getattr(Addresses(), name).startswith("https://") for name in vars(Addresses()))


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("hdx=http://mirror.example.org", "by https only"),
        ("hdx=ftp://mirror.example.org", "http"),
        ("hdx=https://user:word@mirror.example.org", "user"),
        ("hdxx=https://mirror.example.org", "no such service"),
    ],
)
def test_a_mirror_that_cannot_be_is_refused(given: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        addresses({"POPCORN_MIRRORS": given})


@pytest.mark.parametrize(
    ("source", "iso3", "level"), [("nobody", "PLC", 2), ("cod", "PL", 2), ("cod", "PLC", 9)]
)
def test_a_wish_that_cannot_be_is_refused(
    tmp_path: Path, source: str, iso3: str, level: int
) -> None:
    with pytest.raises(ConfigError):
        fetch_boundaries(source, iso3, level=level, year=2020, folder=tmp_path)


@pytest.mark.parametrize(("iso3", "level"), [("RWA", 2), ("USA", 3), ("PRI", 5)])
def test_the_census_bureau_counts_its_own(tmp_path: Path, iso3: str, level: int) -> None:
    with pytest.raises(ConfigError, match="Census Bureau"):
        fetch_counts("us_census", iso3, level=level, year=2020, folder=tmp_path)
