"""Checkpoints published through the real store with chosen held-out losses; nothing is trained."""

import json

import dagster as dg
import yaml

from popcorn_assets.country import PACKAGED
from popcorn_assets.partitions import partition_key
from popcorn_assets.promotion.decide import decide
from popcorn_assets.promotion.ledger import read_ledger
from popcorn_assets.resources import ComputeResource
from popcorn_assets.store.versions import Address, Store
from tests.platforms import Place

HELD_OUT = ["0101", "0207"]
WHO = "user tester"


def configure(place: Place, **model) -> None:
    """Write the demo's country file with this `model` section."""
    settings = yaml.safe_load((PACKAGED / "demo.yaml").read_text("utf-8"))
    settings["model"] = model
    path = place.home / "countries" / "demo.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")


def publish(place: Place, write, *, country="demo", year=2020, parameters=None, inputs=()) -> str:
    """Publish a version of `checkpoints` in the store; `write` fills its folder. The version."""
    store, address = Store(place.data), Address("checkpoints", country, year)
    with store.draft(address) as draft:
        seeds = write(draft)
        manifest = {
            "inputs": list(inputs),
            "parameters": {
                "level": "coarse",
                "pixel_area_m2": 100.0,
                "provenance": {},
                **(parameters or {}),
            },
            "facts": {"seeds": seeds},
            "checks": [],
            "run_id": "a test's",
        }
        return store.publish(address, draft, manifest).version


def train(
    place: Place,
    loss: float,
    *,
    country="demo",
    year=2020,
    level="coarse",
    held_out=HELD_OUT,
    chosen_by="held_out_loss",
    weight=None,
    counts=None,
) -> str:
    """A version of two members whose held-out losses have this mean at their best epochs.

    `counts` is the version of the census counts that they say they were trained on.
    """
    import numpy as np
    from safetensors.numpy import save_file

    def write(folder):
        for seed, own in ((1600, loss * 0.9), (1601, loss * 1.1)):
            member = folder / f"member_{seed}"
            member.mkdir()
            save_file({"w": np.array([weight or own])}, member / "occupancy.safetensors")
            worse = {"held_out_loss": own * 2, "held_out_total_ratio": 3.0}
            best = {"held_out_loss": own, "held_out_total_ratio": 1.25}
            history = [worse, best if held_out else {"train_loss": 1.0}, worse]
            (member / "history.json").write_text(json.dumps(history))
            card = {
                "best_epoch": 2,
                "chosen_by": chosen_by,
                "hyperparameters": {"occupancy_weight": 0.01},
            }
            (member / "card.json").write_text(json.dumps(card))
            (member / "units.json").write_text(json.dumps({"held_out": list(held_out)}))
        return [1600, 1601]

    inputs = []
    if counts:
        named = {"asset": "census_counts", "country": country, "year": year}
        inputs = [{**named, "version": counts}]
    parameters = {"level": level}
    return publish(place, write, country=country, year=year, parameters=parameters, inputs=inputs)


def deploy(place: Place, year=2021, *, country="demo", also=()):
    """Materialise deployed_model (and others) of a year in the place's own instance."""
    from popcorn_assets.definitions import defs

    with place.instance() as instance:
        return dg.materialize(
            [*defs.assets],
            selection=["deployed_model", *also],
            partition_key=partition_key(country, year),
            instance=instance,
            resources={**defs.resources, "compute": ComputeResource(launcher="inline")},
            tags={"popcorn/reuse": "true"},
            raise_on_error=False,
        )


def shown(result, asset="deployed_model") -> dict:
    (event,) = (
        e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)
    )
    return {title: value.value for title, value in event.materialization.metadata.items()}


def warning(result) -> str:
    """The message of the check `promotion`; empty where it passed."""
    (check,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "promotion")
    assert check.severity == dg.AssetCheckSeverity.WARN
    return "" if check.passed else check.description


def deployed(store: Store, year=2021) -> dict:
    version = store.latest(Address("deployed_model", "demo", year))
    return json.loads(version.file("deployed.json").read_text())


def actions(store: Store) -> list[str]:
    return [entry.action for entry in read_ledger(store, "demo").entries]


def decided(store: Store, year=2021) -> str:
    return decide(store, "demo", year, who=WHO).model.version


def left_to_do(store: Store, year=2021) -> str:
    """What a decision leaves to an operator; empty for nothing."""
    decision = decide(store, "demo", year, who=WHO)
    return "" if decision.settled else decision.message


def rewrite(path, change):
    """Change a JSON file behind the ledger's back."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
