"""Platforms for tests: a home with an instance, a store and country files, and what is in it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from popcorn_assets.store.versions import Address, Store

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Place:
    """Where a test's platform lives: a home with its own instance, store and country files."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    def environment(self) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.home),
            "POPCORN_DATA": str(self.data),
            "POPCORN_COUNTRIES": str(self.home / "countries"),
        }


def make_place(home: Path) -> Place:
    (home / "countries").mkdir(parents=True)
    (home / "data").mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copyfile(REPOSITORY / name, home / name)
    return Place(home)


def copied(place: Place, home: Path) -> Place:
    """The same platform elsewhere, with Dagster's records."""
    shutil.copytree(place.home, home, symlinks=True)
    unlock(home)
    return Place(home)


def unlock(folder: Path) -> None:
    """Let a test damage what is read-only, whoever it runs as."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


def write_demo_file(place: Place, spec, **training) -> None:
    """The demo's country file, cut to a smaller simulated country."""
    packaged = REPOSITORY / "popcorn_assets" / "countries" / "demo.yaml"
    country = yaml.safe_load(packaged.read_text("utf-8"))
    west, south, east, north = spec.grid.bounds
    country["grid"]["bounds"] = [west, south, east, north]
    country["training"] = {**country["training"], **training}
    country["mapping"] = {"tile_px": 100}
    text = yaml.safe_dump(country, sort_keys=False, allow_unicode=True)
    (place.home / "countries" / "demo.yaml").write_text(text, "utf-8")


def tiny_spec():
    from popcorn_ml.simulate.spec import CountrySpec

    return CountrySpec(
        width=200, height=160, coarse_units=12, fine_units_each=3, s2_dates=2, s1_passes=2
    )


def enter(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place.home)
    assert os.environ["DAGSTER_HOME"] == str(place.home)


def publish_model(store: Store, country: str, year: int):
    """Checkpoints of one member, with what a decision to use them reads."""
    address = Address("checkpoints", country, year)
    with store.draft(address) as draft:
        member = draft / "member_1600"
        member.mkdir()
        save_file({"bias": np.zeros(1, np.float32)}, member / "occupancy.safetensors")
        (member / "history.json").write_text(json.dumps([{"held_out_loss": 10.0}]))
        (member / "card.json").write_text(json.dumps({"best_epoch": 1}))
        (member / "units.json").write_text(json.dumps({"held_out": ["7"]}))
        manifest = {"inputs": [], "checks": [], "facts": {"seeds": [1600]}, "parameters": {}}
        return store.publish(address, draft, manifest)
