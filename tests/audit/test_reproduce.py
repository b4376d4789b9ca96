"""A map made again from its manifest is the same to the last byte, and the store is not touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from popcorn_assets.audit.reproduce import reproduce
from popcorn_assets.cli import cli
from popcorn_assets.store.versions import MANIFEST, Address, Store, sha256
from popcorn_ml.errors import StoreError

pytestmark = pytest.mark.long(15)


def state(root: Path) -> dict[str, tuple]:
    """Names, contents and times of everything in the store but its work and Dagster's records."""
    return {
        path.relative_to(root).as_posix(): (sha256(path), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in (".work", "dagster")
    }


def test_the_maps_of_2021_are_made_again_bit_by_bit(in_copy):
    before = state(in_copy.data)
    done = CliRunner().invoke(cli, ["reproduce", "demo", "2021"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    identical = [line for line in done.output.splitlines() if line.startswith("identical")]
    store = Store(in_copy.data)
    for asset, line in zip(
        ("population_map", "adjusted_map", "hectare_map"), identical, strict=True
    ):
        version = store.latest(Address(asset, "demo", 2021)).version
        assert line == f"identical  {asset} demo|2021 {version}"
    assert state(in_copy.data) == before
    assert not (in_copy.data / ".work" / "reproduce").exists()


def test_what_differs_is_named(in_copy):
    store = Store(in_copy.data)
    version = store.latest(Address("hectare_map", "demo", 2020))
    path = version.path / MANIFEST
    kept = path.read_bytes()
    manifest = json.loads(kept)
    manifest["libraries"]["numpy"] = "0.1"
    manifest["code"]["version"] = "0" * 12
    manifest["files"]["population.tif"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    try:
        remade = reproduce(store, version.address)
    finally:
        path.write_bytes(kept)
    assert remade.identical, "the version is the folder's name"
    (file,) = remade.files
    assert file.startswith("population.tif has other contents")
    told = " ".join(remade.differences)
    assert "library numpy was 0.1, is " in told
    assert "code 000000000000" in told
    assert "setting" not in told


def test_what_cannot_be_made_again_says_why(in_copy):
    store = Store(in_copy.data)
    with pytest.raises(StoreError, match="is a decision"):
        reproduce(store, Address("deployed_model", "demo", 2021))
    with pytest.raises(StoreError, match="no version that can be made again"):
        reproduce(store, Address("hectare_map", "demo", 2019))
    counts = store.latest(Address("census_counts", "demo", 2021))
    source = store.root / counts.manifest()["sources"][0]["path"]
    kept = source.read_bytes()
    source.write_bytes(kept + b"\n")
    try:
        with pytest.raises(StoreError, match="a file that is no longer the same"):
            reproduce(store, counts.address)
    finally:
        source.write_bytes(kept)
