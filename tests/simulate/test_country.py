"""Writing the country: whole files, the same bytes, nothing made twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from popcorn_ml.simulate.country import write_country
from popcorn_ml.simulate.spec import CountrySpec

pytestmark = pytest.mark.long(20)

TINY = CountrySpec(
    code="tiny", seed=8, width=60, height=60, urban_share=0.4, coarse_units=4,
    s2_dates=3, s2_edge_dates=1, s1_passes=1,
)  # fmt: skip


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    steps = []
    summary = write_country(folder, TINY, [2020], lambda done, total: steps.append((done, total)))
    return folder, summary, steps, hashes(folder)


def test_progress_reaches_its_end(written):
    _, summary, steps, _ = written
    assert summary.written
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, total in steps} == {len(steps)}


def test_bytes_depend_neither_on_the_run_nor_on_the_workers(written, tmp_path):
    *_, before = written
    write_country(tmp_path, TINY, [2020], workers=1)
    assert hashes(tmp_path) == before


def test_a_second_call_touches_nothing(written):
    folder, summary, _, _ = written
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = write_country(folder, TINY, [2020])
    assert not again.written
    assert (again.scenes, again.people, again.units) == (
        summary.scenes,
        summary.people,
        summary.units,
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


@pytest.mark.parametrize("pattern", ["**/B08.tif", "**/vh.tif", "census/*.gpkg", "truth/*.tif"])
@pytest.mark.parametrize("fault", ["missing", "cut off"])
def test_a_damaged_file_is_made_again_and_the_others_are_left(written, pattern, fault):
    folder, _, _, before = written
    victim = sorted(folder.glob(pattern))[0]
    other = sorted(folder.glob("**/B02.tif"))[-1]
    stamp = other.stat().st_mtime_ns
    if fault == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-100])
    assert write_country(folder, TINY, [2020]).written
    assert hashes(folder) == before
    assert other.stat().st_mtime_ns == stamp


def test_a_killed_run_leaves_no_items_and_the_next_one_finishes(written, tmp_path):
    """Items and manifest come last: what was cut off half-way cannot be taken for whole."""
    *_, before = written

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == total // 2:
            raise Killed

    with pytest.raises(Killed):
        write_country(tmp_path, TINY, [2020], kill)
    assert not (tmp_path / "items.json").exists()
    kept = sorted(tmp_path.glob("**/B02.tif"))
    assert kept
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert write_country(tmp_path, TINY, [2020]).written
    assert hashes(tmp_path) == before
    assert [path.stat().st_mtime_ns for path in kept] == stamps


def test_a_further_year_is_added(written, tmp_path):
    *_, before = written
    write_country(tmp_path, TINY, [2020])
    both = write_country(tmp_path, TINY, [2021])
    assert both.years == (2020, 2021)
    after = hashes(tmp_path)
    assert {k: v for k, v in after.items() if k in before and "json" not in k} == {
        k: v for k, v in before.items() if "json" not in k
    }
    dates = [
        item["properties"]["datetime"]
        for item in json.loads((tmp_path / "items.json").read_text())["features"]
    ]
    assert min(dates) < "2020-04"
    assert max(dates) > "2022-01"
    assert both.truth_file(2021).is_file()


def test_another_specification_replaces_what_is_there(written, tmp_path):
    *_, before = written
    write_country(tmp_path, TINY, [2020])
    write_country(tmp_path, replace(TINY, seed=9), [2020])
    after = hashes(tmp_path)
    assert after["truth/truth_2020.tif"] != before["truth/truth_2020.tif"]
    write_country(tmp_path, TINY, [2020])
    assert hashes(tmp_path) == before
