"""`popcorn new` with what agencies publish, from the server that is all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.country import load_country
from tests.platforms import Place

from .services import PEOPLE, Services


def new(*words: str):
    return CliRunner().invoke(cli, ["new", *words, "--name", "Place", "--year", "2021"])


def test_borders_and_counts_of_agencies_make_a_country(services: Services, place: Place) -> None:
    services.cod_boundaries(), services.cod_counts()
    asked = ("plc", "--boundaries", "cod", "--counts", "cod")  # a code that is the ISO code
    done = new(*asked)
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"12 of 12 units have a count; {PEOPLE:,} people in 2020" in done.output
    assert done.output.rstrip().endswith("popcorn run plc 2021")
    level = load_country("plc").census.levels["adm2"]
    assert level.reader == "cod"
    assert level.boundaries.licence
    assert level.counts[0].url.startswith(services.url)
    services.files.clear()  # what was fetched is there
    again = new(*asked)
    assert again.exit_code == 0, (again.output, again.exception)
    assert "as asked for already" in again.output


@pytest.mark.parametrize("by", ["names", "codes"])
def test_an_own_table_beside_an_agencys_borders(
    services: Services, place: Place, tmp_path: Path, by: str
) -> None:
    services.cod_boundaries(), services.cod_counts()
    assert new("plc", "--boundaries", "cod", "--counts", "cod").exit_code == 0
    from popcorn_ml.census.files import Files
    from popcorn_ml.census.readers import read_counts

    with Files(place.data / "census" / "plc") as files:
        (read,) = read_counts(load_country("plc").census.levels["adm2"], files)
    column = "name" if by == "names" else "id"
    own = pd.DataFrame({by: read.frame[column], "people": range(100, 112)})
    own.to_csv(tmp_path / "own_2019.csv", index=False)
    counts = str(tmp_path / "own_2019.csv")
    done = new("own", "--boundaries", "cod", "--counts", counts, "--iso", "PLC")
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"12 of 12 units have a count; {sum(range(100, 112)):,} people in 2019" in done.output


def test_an_agency_that_has_nothing_leaves_no_country(services: Services, place: Place) -> None:
    done = new("xyz", "--boundaries", "cod", "--counts", "cod")
    assert done.exit_code != 0
    assert not list((place.home / "countries").iterdir())
