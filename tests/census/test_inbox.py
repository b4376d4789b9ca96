"""The inbox: a good file takes its place, a bad one is put aside with a report that helps."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from popcorn_ml.census.inbox import InboxBusy, Received, receive, unfinished, waiting
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import CensusError
from popcorn_ml.warehouse.warehouse import Warehouse

from . import place
from .place import GRID, settings, write_boundaries, write_counts


class Office:
    """A country's inbox, with sound boundaries and counts already in place."""

    def __init__(self, root: Path) -> None:
        self.inbox, self.accepted, self.base = root / "inbox", root / "accepted", root / "base"
        self.inbox.mkdir()
        self.rows = place.write_place(self.base)
        self.section = settings()
        self.warehouse = Warehouse(root / "w.duckdb")

    def take(self, file: Path) -> Received:
        census = CensusSettings.model_validate(self.section)
        return receive(
            file, "tst", census, GRID, self.inbox, self.accepted, self.base, self.warehouse
        )

    def rejected(self, file: Path, *says: str) -> Received:
        """Take a bad file; it must be put aside whole, with a report that says these things."""
        raw = None if file.is_symlink() else file.read_bytes()
        out = self.take(file)
        assert not out.accepted
        assert not os.path.lexists(file)
        assert out.report is not None
        assert out.report.parent == self.inbox / "rejected"
        text = out.report.read_text("utf-8")
        for part in says:
            assert part in text, f"{part!r} is not in:\n{text}"
        (kept,) = out.stored
        if raw is not None:
            assert kept.read_bytes() == raw
        assert not self.accepted.exists()
        assert self.warehouse.query("SELECT count(*) FROM received") == [(0,)]
        assert sorted(p.name for p in kept.parent.iterdir()) == sorted([kept.name, out.report.name])
        return out


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_good_table_takes_its_place(office: Office) -> None:
    office.rows[0].people += 1
    file = write_counts(office.inbox / "counts.csv", office.rows)
    raw = file.read_bytes()
    out = office.take(file)
    assert out.accepted, out.message
    assert (out.levels, out.years) == (("district",), (2020,))
    assert out.stored == (office.accepted / "counts.csv",)
    assert out.stored[0].read_bytes() == raw
    assert out.sha256 == hashlib.sha256(raw).hexdigest()
    assert list(office.inbox.iterdir()) == []
    assert office.warehouse.query(
        "SELECT country, file, sha256, bytes, levels, years FROM received"
    ) == [("tst", "counts.csv", out.sha256, len(raw), "district", "2020")]


def test_the_predecessor_is_kept(office: Office) -> None:
    first = office.take(write_counts(office.inbox / "counts.csv", office.rows))
    office.rows[0].people += 1
    second = office.take(write_counts(office.inbox / "counts.csv", office.rows))
    assert first.sha256 != second.sha256
    kept = office.accepted / ".history" / first.sha256[:16] / "counts.csv"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == first.sha256
    assert office.warehouse.query("SELECT count(*) FROM received") == [(2,)]


def test_good_boundaries_and_the_counts_they_go_with(office: Office) -> None:
    file = write_boundaries(office.inbox / "units.gpkg", office.rows)
    out = office.take(file)
    assert out.accepted, out.message
    assert out.years == (2020,)


def test_boundaries_that_no_longer_fit_the_counts(office: Office) -> None:
    for unit in office.rows:
        unit.id = "9" + unit.id
    office.rejected(
        write_boundaries(office.inbox / "units.gpkg", office.rows), "not one id is the same"
    )


def test_a_zipped_shapefile(office: Office) -> None:
    office.section = settings(boundaries__file="borders/units.shp")
    source = office.base / "borders"
    write_boundaries(source / "units.shp", office.rows)
    with zipfile.ZipFile(office.inbox / "from the office.zip", "w") as out:
        for path in sorted(source.iterdir()):
            out.write(path, f"shape/{path.name}")
        out.writestr("shape/readme.txt", "thank you")
    shutil.rmtree(source)
    done = office.take(office.inbox / "from the office.zip")
    assert done.accepted, done.message
    assert {p.relative_to(office.accepted).as_posix() for p in done.stored} >= {
        f"borders/units.{s}" for s in ("shp", "shx", "dbf", "prj")
    }
    assert not (office.accepted / "borders" / "readme.txt").exists()


def test_a_table_of_one_more_year(office: Office) -> None:
    office.section = settings()
    columns = {"id": "code", "people": "population"}
    office.section["levels"]["district"]["counts"] = {
        "file": "yearly/counts_{year}.csv", "columns": columns
    }  # fmt: skip
    write_counts(office.base / "yearly" / "counts_2020.csv", office.rows)
    out = office.take(write_counts(office.inbox / "counts_2021.csv", office.rows))
    assert out.accepted, out.message
    assert out.stored == (office.accepted / "yearly" / "counts_2021.csv",)
    assert out.years == (2020, 2021)


def test_counts_that_come_before_their_boundaries(office: Office) -> None:
    (office.base / "units.gpkg").unlink()
    out = office.take(write_counts(office.inbox / "counts.csv", office.rows))
    assert out.accepted
    assert "units.gpkg is not there yet" in out.message


def test_rows_that_are_wrong_are_listed(office: Office) -> None:
    office.rows[3].people, office.rows[7].people = -4, "twelve"
    file = write_counts(office.inbox / "counts.csv", office.rows)
    out = office.rejected(
        file, "counts_nonnegative", "row=5", "people=-4", "counts_numeric", "row=9", "twelve",
        "must be corrected", "put the file into the inbox again",
    )  # fmt: skip
    assert {c.name for c in out.checks if c.blocks} >= {"counts_nonnegative", "counts_numeric"}


def test_an_unreadable_file(office: Office) -> None:
    file = office.inbox / "counts.csv"
    file.write_text("<html>session expired</html>")
    office.rejected(file, "a web page", "remedy")


def test_a_name_that_nobody_knows(office: Office) -> None:
    file = office.inbox / "populatoin.csv"
    file.write_text("a,b\n1,2\n")
    office.rejected(file, "no level of the country", "counts.csv", "units.gpkg", "rename it")


def test_one_file_of_a_shapefile(office: Office) -> None:
    office.section = settings(boundaries__file="units.shp")
    write_boundaries(office.base / "units.shp", office.rows)
    shutil.copy(office.base / "units.dbf", office.inbox / "units.dbf")
    office.rejected(office.inbox / "units.dbf", "one zip archive")


def test_a_zip_bomb(office: Office) -> None:
    file = office.inbox / "units.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("units.gpkg", b"0" * (64 * 1024**2))
    office.rejected(file, "zip bomb")


def test_a_zip_that_lies_about_its_size(office: Office) -> None:
    """The header says 10 bytes; unpacking stops there instead of filling the disk."""
    file = office.inbox / "units.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("units.gpkg", b"0" * 1_000_000)
    raw = bytearray(file.read_bytes())
    true = (1_000_000).to_bytes(4, "little")
    assert raw.count(true) == 2
    file.write_bytes(bytes(raw).replace(true, (10).to_bytes(4, "little")))
    office.rejected(file, "units.gpkg", "damaged")


@pytest.mark.parametrize(
    "name", ["../units.gpkg", "/etc/units.gpkg", "a/../../units.gpkg", "C:\\units.gpkg"]
)
def test_a_path_that_leaves_the_archive(office: Office, name: str) -> None:
    file = office.inbox / "units.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(zipfile.ZipInfo(name), (office.base / "units.gpkg").read_bytes())
    office.rejected(file, "outside its folder")
    assert not (office.inbox.parent / "units.gpkg").exists()


def test_an_encrypted_archive(office: Office) -> None:
    file = office.inbox / "units.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.write(office.base / "units.gpkg", "units.gpkg")
    raw = bytearray(file.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(raw)
    office.rejected(file, "encrypted", "unpack it")


def test_a_link_is_not_followed(office: Office) -> None:
    secret = office.inbox.parent / "secret.csv"
    secret.write_text("do not read")
    link = office.inbox / "counts.csv"
    link.symlink_to(secret)
    out = office.rejected(link, "a link was put into the inbox", "copy the file itself")
    assert secret.read_text() == "do not read"
    assert out.stored[0].is_symlink()


def test_a_second_name_of_another_file_is_refused(office: Office) -> None:
    os.link(office.base / "counts.csv", office.inbox / "counts.csv")
    office.rejected(office.inbox / "counts.csv", "second name")


@pytest.mark.parametrize("path", ["../base/counts.csv", "sub/../../base/counts.csv"])
def test_a_path_that_leaves_the_inbox(office: Office, path: str) -> None:
    (office.inbox / "sub").mkdir()
    with pytest.raises(CensusError, match="leaves the inbox"):
        office.take(office.inbox / path)
    assert (office.base / "counts.csv").exists()
    assert not (office.inbox / "rejected").exists()


def test_a_name_with_control_characters(office: Office) -> None:
    file = office.inbox / "counts\n.csv"
    file.write_text("a")
    out = office.rejected(file, "name cannot be used")
    assert "\n" not in out.stored[0].name


def test_an_empty_file(office: Office) -> None:
    file = office.inbox / "counts.csv"
    file.touch()
    office.rejected(file, "is empty")


def test_only_complete_files_are_waiting(office: Office) -> None:
    for name in ("b.csv", "a.csv", ".hidden", "c.csv.part", "d.tmp"):
        (office.inbox / name).write_text("x")
        os.utime(office.inbox / name, (1, 1))
    (office.inbox / "still_written.csv").write_text("x")
    (office.inbox / "rejected").mkdir()
    assert [p.name for p in waiting(office.inbox)] == ["a.csv", "b.csv"]
    assert waiting(office.inbox / "none") == []


def test_a_file_replaced_while_it_was_read_stays(office: Office, monkeypatch) -> None:
    from popcorn_ml.census import inbox

    file = write_counts(office.inbox / "counts.csv", office.rows)
    true = inbox.examine

    def meanwhile(*args, **kwargs):
        file.write_text("a newer one")
        return true(*args, **kwargs)

    monkeypatch.setattr(inbox, "examine", meanwhile)
    assert office.take(file).accepted
    assert file.read_text() == "a newer one"


def test_a_file_replaced_while_it_was_judged_and_rejected_stays(office: Office, monkeypatch):
    from popcorn_ml.census import inbox

    file = write_counts(office.inbox / "counts.csv", office.rows)
    corrected = file.read_bytes()
    file.write_text("nonsense\n1\n")
    true = inbox.examine

    def meanwhile(*args, **kwargs):
        file.write_bytes(corrected)
        return true(*args, **kwargs)

    monkeypatch.setattr(inbox, "examine", meanwhile)
    out = office.take(file)
    assert not out.accepted
    assert file.read_bytes() == corrected
    assert [path.read_text() for path in out.stored] == ["nonsense\n1\n"]
    assert "the file in the inbox was replaced" in out.report.read_text("utf-8")
    assert office.take(file).accepted
    assert list(office.accepted.glob("*.csv"))


def test_a_file_taken_away_while_it_was_judged_is_put_aside_from_the_copy(office, monkeypatch):
    from popcorn_ml.census import inbox

    file = office.inbox / "counts.csv"
    file.write_text("nonsense\n1\n")
    true = inbox.examine

    def meanwhile(*args, **kwargs):
        file.unlink()
        return true(*args, **kwargs)

    monkeypatch.setattr(inbox, "examine", meanwhile)
    assert office.take(file).stored[0].read_text() == "nonsense\n1\n"
    with pytest.raises(CensusError, match="no longer in the inbox"):
        office.take(file)


def test_a_file_dated_ahead_is_complete_once_nothing_was_done_to_it(office: Office, monkeypatch):
    from popcorn_ml.census import inbox

    for name in ("ahead.csv", "draft.part"):
        (office.inbox / name).write_text("x")
        ahead = time.time() + 86_400
        os.utime(office.inbox / name, (ahead, ahead))
    ahead, draft = office.inbox / "ahead.csv", office.inbox / "draft.part"
    assert waiting(office.inbox) == []
    assert [path for path, _ in unfinished(office.inbox)] == [ahead, draft]
    assert "changed 0 s ago" in unfinished(office.inbox)[0][1]
    true = time.time
    monkeypatch.setattr(inbox.time, "time", lambda: true() + 6)
    assert waiting(office.inbox) == [ahead]
    ((path, why),) = unfinished(office.inbox)
    assert (path, "being written" in why) == (draft, True)
    monkeypatch.setattr(inbox.time, "time", lambda: true() - 3600)  # the clock was set back
    assert "touch" in unfinished(office.inbox)[0][1]


def test_two_looks_at_once_take_a_file_in_once(office: Office, monkeypatch):
    from popcorn_ml.census import inbox

    file = write_counts(office.inbox / "counts.csv", office.rows)
    true, refused = inbox.examine, []

    def meanwhile(*args, **kwargs):  # the tick is given up, and the next one begins
        with pytest.raises(InboxBusy, match=r"counts\.csv") as error:
            office.take(file)
        refused.append(error.value)
        return true(*args, **kwargs)

    monkeypatch.setattr(inbox, "examine", meanwhile)
    assert office.take(file).accepted
    assert len(refused) == 1
    assert office.warehouse.query("SELECT count(*) FROM received") == [(1,)]
    assert list(office.inbox.iterdir()) == []


def test_a_table_of_changed_units_comes_by_the_inbox(office: Office) -> None:
    """Counts that need it are taken before it comes, and one that cannot be is told."""
    columns = {"id": "code", "people": "population"}
    office.section = settings(counts={"file": "counts_{year}.csv", "columns": columns})
    level = office.section["levels"]["district"]
    level["changes"] = {"file": "changes.csv", "year": 2018}
    write_counts(office.base / "counts_2016.csv", office.rows[:11])
    file = write_counts(office.inbox / "counts_2020.csv", office.rows)
    assert office.take(file).accepted
    changes = office.inbox / "changes.csv"
    changes.write_text("old,new,share\n0011,0011,0.5\n0011,0012,0.4\n")
    assert "shares add up to 0.9" in office.take(changes).message
    changes.write_text("old,new,share\n0011,0011,0.5\n0011,0012,0.5\n")
    out = office.take(changes)
    assert out.accepted, out.message
    assert out.levels == ("district",)
