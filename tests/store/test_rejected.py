"""What failed a check that blocks is kept to be looked at, and never becomes current."""

from __future__ import annotations

import json

import pytest

from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    REJECTED,
    Address,
    Store,
    sha256,
)
from popcorn_ml.errors import StoreError

HERE = Address("census_counts", "demo", 2020)


def check(passed: bool, severity: str = "error", message: str = "12 of 10 rows") -> dict:
    return {"name": "joined", "passed": passed, "severity": severity, "message": message}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def publish(store, text, passed=True, severity="error", note="", record=None):
    with store.draft(HERE) as draft:
        (draft / "counts.txt").write_text(text)
        manifest = {"checks": [check(passed, severity)], "note": note}
        return store.publish(HERE, draft, manifest, record)


def test_the_last_good_version_stays_current(store):
    good, told = publish(store, "10"), []
    bad = publish(store, "12", passed=False, record=lambda manifest, _: told.append(manifest))
    assert store.latest(HERE) == good
    assert store.rejected(HERE) == store.newest(HERE) == bad != good
    assert bad.file("counts.txt").read_text() == "12", "kept to be looked at"
    assert told[0]["version"] == bad.version
    warned = publish(store, "11", passed=False, severity="warn")
    assert store.latest(HERE) == store.newest(HERE) == warned
    assert store.rejected(HERE) is None


def test_a_first_version_that_is_rejected_is_no_version_to_go_on_from(store):
    bad = publish(store, "12", passed=False)
    assert store.find(HERE) is None
    with pytest.raises(StoreError, match=r"did not pass its checks(.|\n)*joined: 12 of 10 rows"):
        store.latest(HERE)
    assert store.newest(HERE) == bad


def test_equal_contents_that_fail_now_leave_what_is_current_as_it_is(store):
    good = publish(store, "10", note="first")
    bad = publish(store, "10", passed=False, note="stricter")
    assert bad.version == good.version
    assert store.latest(HERE).manifest()["note"] == "first"
    assert bad.manifest()["note"] == store.rejected(HERE).manifest()["note"] == "stricter"
    assert bad.manifest_sha256() == store.rejected(HERE).told.removeprefix(f"{HISTORY}/")[:-5]
    (good.path / "counts.txt").chmod(0o600)
    (good.path / "counts.txt").write_text("damaged")
    again = publish(store, "10", passed=False, note="stricter again")
    assert store.latest(HERE).manifest()["note"] == "first"
    assert again.manifest()["note"] == "stricter again"
    assert good.file("counts.txt").read_text() == "10"
    notes = {json.loads(p.read_text())["note"] for p in (good.path / HISTORY).iterdir()}
    assert notes == {"stricter", "stricter again"}


def test_rejected_contents_that_pass_now_become_current(store):
    publish(store, "10")
    bad = publish(store, "12", passed=False, note="too strict")
    good = publish(store, "12", note="corrected")
    assert good.version == bad.version
    assert store.latest(HERE).manifest()["note"] == "corrected"
    assert store.rejected(HERE) is None
    assert len(list((good.path / HISTORY).iterdir())) == 1


def test_a_store_from_before_whose_current_version_failed_is_read_as_it_is(store):
    good, bad = publish(store, "10"), publish(store, "12", passed=False)
    (store.folder(HERE) / LATEST).write_text(f"{bad.version}\n")
    (store.folder(HERE) / REJECTED).unlink()
    assert store.latest(HERE).version == bad.version
    publish(store, "12", passed=False, note="again")
    assert sha256(store.latest(HERE).path / MANIFEST) == bad.manifest_sha256()
    publish(store, "10")
    assert store.latest(HERE).version == good.version


def test_a_pointer_to_nothing_is_named(store):
    publish(store, "10")
    (store.folder(HERE) / REJECTED).write_text("0123456789abcdef x\n")
    with pytest.raises(StoreError, match="REJECTED names a version that is not there"):
        store.rejected(HERE)
    publish(store, "11")
    assert store.rejected(HERE) is None
