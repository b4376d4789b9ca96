"""Every check of model and maps on the small country's own files, and on altered copies of them."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import numpy as np
import pytest
import rasterio

from popcorn_assets.checks import checks
from popcorn_assets.checks.change import changes, together
from popcorn_assets.checks.model import builtup_error
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.wording import rounded
from popcorn_ml import raster

pytestmark = [pytest.mark.timeout(400)]

ASSETS = (
    "builtup_area",
    "census_counts",
    "census_units",
    "checkpoints",
    "deployed_model",
    "population_map",
    "adjusted_map",
    "hectare_map",
    "evaluation",
)
UNITS = 12
"""Of the training level."""

WARNINGS = {
    "training_helped",
    "model_beats_builtup",
    "map_beats_builtup",
    "scored_without_truth",
    "members_agree",
    "change_since_last_year",
    "inputs_are_current",
    "intervals_hold",
}


@pytest.fixture
def store(in_tiny, tmp_path, monkeypatch) -> Store:
    """A copy of what the checks read, that a test may alter."""
    for path in in_tiny.data.iterdir():
        if path.is_dir() and path.name not in ("dagster", "demo", ".work"):
            if path.name in ASSETS:
                shutil.copytree(path, tmp_path / "data" / path.name)
            else:  # versions that are only compared by name
                shutil.copytree(
                    path,
                    tmp_path / "data" / path.name,
                    ignore=lambda _, names: [n for n in names if n.endswith((".tif", ".png"))],
                )
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    return Store(tmp_path / "data")


def judge(*names: str, year: int = 2021) -> dict[str, dg.AssetCheckEvaluation]:
    """Verdicts of some checks, run by Dagster as from the UI."""
    from popcorn_assets.definitions import defs

    chosen = [check for check in checks if not names or check.check_key.name in names]
    assert len(chosen) == len(names) or not names
    job = dg.define_asset_job("judge", selection=dg.AssetSelection.checks(*chosen))
    judging = dg.Definitions(
        assets=defs.assets, asset_checks=chosen, jobs=[job], resources=defs.resources
    )
    # A job of checks alone has no partitions in process; its run has them as from the UI, by tags.
    result = judging.resolve_job_def("judge").execute_in_process(
        tags=COUNTRY_YEAR.get_tags_for_partition_key(partition_key("demo", year)),
        raise_on_error=False,
    )
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def only(name: str, year: int = 2021) -> dg.AssetCheckEvaluation:
    return judge(name, year=year)[name]


def number(found: dg.AssetCheckEvaluation, name: str) -> float:
    return found.metadata[name].value


def version(store, asset, year=2021):
    return store.latest(Address(asset, "demo", year))


def alter(path, change, band=None) -> None:
    """Change a raster in place: `change` takes its values and gives others."""
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        for index in [band] if band else dataset.indexes:
            dataset.write(change(dataset.read(index)), index)


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def members(store):
    folder = version(store, "checkpoints", 2020).path
    return sorted(folder.glob("member_*"))


def test_only_errors_block_and_the_small_country_has_none(store):
    blocking = {c.check_key.name: next(iter(c.check_specs)).blocking for c in checks}
    assert {name for name, blocks in blocking.items() if not blocks} == WARNINGS
    of_training = {"finite_training", "training_helped", "model_beats_builtup"}
    found = judge(*blocking.keys() - of_training, year=2021) | judge(*of_training, year=2020)
    assert found.keys() == blocking.keys()
    for name, verdict in found.items():
        assert verdict.passed or name in WARNINGS, verdict.description
        expected = dg.AssetCheckSeverity.WARN if name in WARNINGS else dg.AssetCheckSeverity.ERROR
        assert verdict.severity == expected
        assert verdict.description
        if not verdict.passed:
            assert "To do: " in verdict.description
    assert number(found["finite_training"], "weights") > 10_000
    assert number(found["units_sum_to_the_census"], "worst") <= 1e-6
    assert found["inputs_are_current"].passed


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_training_that_is_no_number_is_an_error(store, what):
    member = members(store)[0]
    if what == "loss":
        edit(member / "history.json", lambda history: history[-1].update(train_loss=float("nan")))
    else:
        from safetensors.numpy import load_file, save_file

        weights = load_file(member / "occupancy.safetensors")
        name, values = next(iter(weights.items()))
        save_file({**weights, name: values * np.float32("inf")}, member / "occupancy.safetensors")
    found = only("finite_training", 2020)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert member.name in found.metadata["rows"].value


def kept(member) -> int:
    return json.loads((member / "card.json").read_text())["best_epoch"] - 1


def test_a_member_that_never_improved_is_warned_of(store):
    for member in members(store):
        edit(member / "card.json", lambda card: card.update(best_epoch=2))
        edit(member / "history.json", lambda epochs: epochs[0].update(held_out_loss=90.0))
    assert only("training_helped", 2020).passed
    edit(members(store)[1] / "history.json", lambda epochs: epochs[0].update(held_out_loss=1.0))
    found = only("training_helped", 2020)
    assert not found.passed
    assert number(found, "stuck") == 1
    assert members(store)[1].name in found.metadata["rows"].value


def test_the_simplest_model_is_worked_out_from_the_units_trained_on(store):
    checkpoints = version(store, "checkpoints", 2020)
    units = raster.read(version(store, "census_units", 2020).file("units_coarse.tif"), bands=1)
    score = raster.read_float(version(store, "builtup_area", 2020).file("builtup_score.tif"))
    counts = json.loads(
        version(store, "census_counts", 2020).file("counts_coarse.json").read_text()
    )
    mean = np.nanmean(score, axis=0, dtype=np.float64)
    scores = {c["id"]: mean[units == c["number"]].sum() for c in counts}
    people = {c["id"]: c["people"] for c in counts}
    ratios, expected = [], {}
    for member in members(store):  # each holds out what the other was trained on
        said = json.loads((member / "units.json").read_text())
        ratios.append(
            sum(people[i] for i in said["trained"]) / sum(scores[i] for i in said["trained"])
        )
        for unit in said["held_out"]:
            expected[unit] = abs(np.log((ratios[-1] * scores[unit] + 1) / (people[unit] + 1)))
    assert expected.keys() == people.keys()
    assert len(people) == UNITS
    error, found = builtup_error(store, checkpoints)
    assert found == pytest.approx(np.mean(ratios), rel=1e-6)
    assert error == pytest.approx(np.mean([*expected.values()]), rel=1e-6)

    for level, passes in ((error * 0.9, True), (error * 1.1, False)):
        for member in members(store):
            edit(
                member / "history.json",
                lambda epochs, m=member, e=level: epochs[kept(m)].update(held_out_log_l1=e),
            )
        verdict = only("model_beats_builtup", 2020)
        assert verdict.passed == passes
        assert number(verdict, "builtup") == pytest.approx(error)


def test_a_map_no_better_than_builtup_is_warned_of(store):
    path = version(store, "evaluation").file("metrics.json")

    def scores(ours):
        return lambda found: found["metrics"]["adjusted"]["hectare"].update(mae=ours)

    simple = json.loads(path.read_text())["metrics"]["builtup"]["hectare"]["mae"]
    edit(path, scores(simple * 0.9))
    assert only("map_beats_builtup").passed
    edit(path, scores(simple * 1.1))
    assert not only("map_beats_builtup").passed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: _score(found, "hectare", mae=None, r2=None, n=0), "no hectare has both"),
        (lambda found: _score(found, "hectare", n=2), "2 are too few to tell, at least 10"),
        (
            lambda found: (
                [scores.pop("hectare") for scores in found["metrics"].values()]
                and _score(found, "unit", mae=None, n=0)
            ),
            "no unit has both counted people and a value",
        ),
        (
            lambda found: (
                [scores.clear() for scores in found["metrics"].values()]
                and found.update(unit_level="coarse")
            ),
            "no level was kept out of training",
        ),
    ],
)
def test_a_map_that_could_not_be_compared_is_no_pass(store, change, told):
    edit(version(store, "evaluation").file("metrics.json"), change)
    found = only("map_beats_builtup")
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "not judged" in found.description
    assert told in found.description


def _score(found, per, **figures):
    for approach in ("adjusted", "builtup"):
        found["metrics"][approach][per].update(figures)


def test_too_few_held_out_units_are_told_with_their_number(store):
    (first, *_) = json.loads((members(store)[0] / "units.json").read_text())["held_out"]
    for member in members(store):
        edit(member / "units.json", lambda said: said.update(held_out=[first]))
    found = only("model_beats_builtup", 2020)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "not judged: 1 held-out units are too few to tell, at least 10" in found.description
    assert number(found, "held out units") == 1


SCORED = {
    "n": 80, "r2": 0.97, "mae": 250.0, "rmse": 400.0, "bias": 30.0, "mae_share": 0.125,
}  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "passes", "told"),
    [
        ({}, True, "80 units predicted by members that never saw them: R2 0.97"),
        ({"bias": -500.0}, False, "bias -500 (-25.0% of their people, at most 20% either way)"),
    ],
)
def test_a_score_needs_no_truth(store, scores, passes, told):
    change = {"why_not": "", "out_of_fold": SCORED | scores}
    edit(
        version(store, "evaluation").file("metrics.json"),
        lambda found: found["without_truth"].update(change),
    )
    found = only("scored_without_truth")
    assert found.passed == passes
    assert told in found.description


def test_too_few_units_for_a_score_are_told_with_how_many_are_needed(store):
    found = only("scored_without_truth")
    assert not found.passed
    assert "not judged: 12 census units were predicted by a member" in found.description
    assert "at least 20 are needed" in found.description
    edit(version(store, "evaluation").file("metrics.json"), lambda m: m.pop("without_truth"))
    assert "not judged: this evaluation is from before" in only("scored_without_truth").description


def test_without_a_finer_level_maps_are_compared_within_joined_units(store):
    def change(found):
        for scores in found["metrics"].values():
            scores.clear()
        found["unit_level"] = "coarse"
        found["without_truth"]["coarsened"] = [
            {"joined": size, "metrics": {a: {"mae": mae, "n": 80} for a, mae in maes.items()}}
            for size, maes in (
                (2, {"adjusted": 9.0, "builtup": 1.0}),
                (4, {"adjusted": 150.0, "builtup": 370.0}),
            )
        ]

    edit(version(store, "evaluation").file("metrics.json"), change)
    found = only("map_beats_builtup")
    assert found.passed
    assert "about 4 joined" in found.description
    assert number(found, "builtup") == 370


def test_what_nothing_was_held_out_of_is_no_pass(store):
    for member in members(store):
        edit(member / "history.json", lambda epochs: [e.pop("held_out_loss", 0) for e in epochs])
        edit(member / "history.json", lambda epochs: [e.pop("held_out_log_l1", 0) for e in epochs])
    for name in ("training_helped", "model_beats_builtup"):
        found = only(name, 2020)
        assert not found.passed
        assert found.severity == dg.AssetCheckSeverity.WARN
        assert "not judged: no unit was held out" in found.description


def test_one_member_says_nothing_of_how_sure_it_is(store):
    path = version(store, "population_map").file("population_members.tif")
    first, grid = raster.read_float(path)[0], raster.grid_of(path)
    path.unlink()
    raster.write(path, first, grid, ["1"], np.nan)
    found = only("members_agree")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "one member only" in found.description


def test_members_that_disagree_are_warned_of(store):
    made = version(store, "population_map")
    before = only("members_agree")
    alter(made.file("population_members.tif"), lambda values: values * 2, band=1)
    found = only("members_agree")
    assert not found.passed
    totals = raster.read_float(made.file("population_members.tif")).sum(axis=(1, 2), dtype=float)
    expected = totals.std(ddof=1) / totals.mean()
    assert number(found, "spread of the total") == pytest.approx(rounded(expected))
    assert number(found, "spread of the total") > number(before, "spread of the total")
    alter(made.file("population_std.tif"), lambda values: values + 1e6)
    assert number(only("members_agree"), "share of people unsure") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("check", "asset", "change"),
    [
        ("finite_and_not_negative", "population_map", lambda v: np.where(v == v.max(), -1, v)),
        ("finite_and_not_negative", "population_map", lambda v: np.where(v == v.max(), np.inf, v)),
        ("covers_the_units", "population_map", lambda v: np.full_like(v, np.nan)),
        ("units_sum_to_the_census", "adjusted_map", lambda v: v * np.float32(1 + 1e-5)),
        ("hectares_keep_every_person", "hectare_map", lambda v: v * np.float32(1 + 1e-5)),
    ],
)
def test_a_map_that_cannot_be_right_is_an_error(store, check, asset, change):
    assert only(check).passed
    alter(version(store, asset).file("population.tif"), change)
    found = only(check)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR


def test_newer_units_are_no_fault_of_a_map_made_from_earlier_ones(store):
    units = version(store, "census_units")
    with store.draft(units.address) as draft:
        for name in units.manifest()["files"]:
            shutil.copyfile(units.file(name), draft / name)
        alter(draft / "units_coarse.tif", lambda numbers: np.roll(numbers, 20, axis=1))
        newer = store.publish(units.address, draft, units.manifest())
    assert version(store, "census_units") == newer != units
    assert only("units_sum_to_the_census").passed
    assert not only("inputs_are_current").passed


def scale_counts(store, year, factor) -> None:
    def change(rows):
        for row in rows:
            row["people"] *= factor

    edit(version(store, "census_counts", year).file("counts_coarse.json"), change)


def test_change_is_the_maps_over_the_same_units(store):
    units = changes(store, "demo", 2021)
    total = together("demo", units)
    numbers = raster.read(version(store, "census_units").file("units_coarse.tif"), bands=1)
    for year, people in ((2020, total.before), (2021, total.now)):
        path = version(store, "population_map", year).file("population.tif")
        values = raster.read_float(path, bands=1)
        assert people == pytest.approx(values[numbers > 0].sum(dtype=np.float64), rel=1e-6)
    assert len(units) == UNITS
    assert all(unit.census is not None for unit in (total, *units))


def test_a_map_that_changes_too_much_or_against_the_census_is_warned_of(store):
    this, last = (version(store, "population_map", y).file("population.tif") for y in (2021, 2020))
    shutil.copyfile(last, this)
    counts = "counts_coarse.json"
    shutil.copyfile(
        version(store, "census_counts", 2020).file(counts),
        version(store, "census_counts", 2021).file(counts),
    )
    scale = 1.03
    alter(this, lambda values: values * np.float32(scale))
    scale_counts(store, 2021, scale)
    quiet = only("change_since_last_year")
    assert quiet.passed, quiet.description
    assert number(quiet, "change") == pytest.approx(scale - 1, rel=1e-3)

    scale_counts(store, 2021, 1.5)  # the census grows, the map does not
    found = only("change_since_last_year")
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "the census says" in found.description
    assert "units map and census disagree" in found.description

    alter(this, lambda values: values * np.float32(1.5))  # both grow beyond what is expected
    found = only("change_since_last_year")
    assert not found.passed
    assert "country's total changed" in found.description
    assert "the census says" not in found.description
    assert number(found, "units against the census") == 0


def test_a_count_withheld_in_one_year_is_no_change_of_the_population(store):
    def edit_counts(year, change):
        edit(version(store, "census_counts", year).file("counts_coarse.json"), change)

    # Nothing changed, on the map or as counted.
    for asset, file in (
        ("population_map", "population.tif"), ("census_counts", "counts_coarse.json"),
    ):  # fmt: skip
        shutil.copyfile(version(store, asset, 2020).file(file), version(store, asset).file(file))
    largest = max(changes(store, "demo", 2021), key=lambda unit: unit.counted or 0).unit

    def withhold(rows):
        rows[:] = [row for row in rows if row["id"] != largest]

    edit_counts(2021, withhold)
    found = only("change_since_last_year")
    assert found.passed, found.description
    assert f"are not compared in 1 of {UNITS} units" in found.description
    assert largest in found.description
    assert number(found, "census change") == pytest.approx(0)
    assert number(found, "change") == pytest.approx(0)  # of all units, the withheld one too

    # Another set of units merged into it is no change either: the counts are of other people.
    def merge(rows):
        rows[0].update(people=2 * rows[0]["people"], members=[rows[0]["id"], "guest"])

    edit_counts(2021, merge)
    found = only("change_since_last_year")
    assert found.passed, found.description
    assert number(found, "units not compared with the census") == 2

    edit_counts(2020, lambda rows: rows.clear())
    found = only("change_since_last_year")
    assert found.passed, found.description
    assert f"are not compared in {UNITS} of {UNITS} units" in found.description
    assert "census change" not in found.metadata


def test_without_last_years_map_there_is_nothing_to_compare(store):
    found = only("change_since_last_year", 2020)
    assert not found.passed, "what was not judged is no pass"
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "not judged: there is no map of 2019" in found.description


def test_another_model_is_named_beside_a_change(store):
    edit(
        version(store, "deployed_model").file("deployed.json"),
        lambda decision: decision.update(version="0" * 16),
    )
    assert "0" * 16 in only("change_since_last_year").metadata["other model"].value


def test_a_newer_input_near_or_far_is_warned_of(store):
    old = version(store, "s2_summer")
    with store.draft(old.address) as draft:
        shutil.copytree(old.path, draft, dirs_exist_ok=True)
        (draft / "manifest.json").unlink()
        (draft / "more.txt").write_text("another scene")
        newer = store.publish(old.address, draft, old.manifest())
    found = only("inputs_are_current")
    assert not found.passed
    assert f"s2_summer demo|2021 is now {newer.version}" in found.description
    assert only("inputs_are_current", 2020).passed
