"""What stands in the way of worse models: detours, all years at once, old ledgers, a new census.

Checkpoints are published through the real store with chosen held-out losses; nothing is trained.
"""

import json
import math
import shutil

import pytest
from click.testing import CliRunner

from popcorn_assets.promotion.by_hand import PromotionRefused, promote, roll_back
from popcorn_assets.promotion.candidates import candidates
from popcorn_assets.promotion.decide import decide, model_for
from popcorn_assets.promotion.entries import InUse, Model
from popcorn_assets.promotion.ledger import (
    ledger_path,
    ledger_versions,
    read_ledger,
    removing,
    verify,
)
from popcorn_assets.promotion.metrics import Metrics, held_out_people, loss_shift, metrics_of
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import StoreError
from tests.platforms import Place
from tests.promotion.models import (
    WHO,
    actions,
    configure,
    decided,
    deploy,
    left_to_do,
    rewrite,
    train,
)


def maps(store: Store, year: int) -> str:
    """The version that maps a year now."""
    return model_for(store, "demo", year).model.version


def in_use(store: Store, year: int) -> str:
    """The version that the ledger has in use for a year, whatever is newer."""
    use = read_ledger(store, "demo").in_use(year)
    assert use is not None
    return use.model.version


# Back from another country ------------------------------------------------------------------------


def test_a_refused_model_does_not_come_back_by_way_of_another_country(home, store):
    good = train(home, 10.0)
    decided(store)
    bad = train(home, 40.0)
    assert decided(store) == good
    abroad = train(home, 12.0, country="rwa")
    configure(home, country="rwa", year=2020)
    assert decided(store) == abroad
    configure(home, country="demo", year=2020)
    assert decided(store) == abroad
    text = left_to_do(store)
    assert f"demo|2020@{bad} was refused by entry 2-" in text
    assert text.count("was refused by") == 1
    assert f"To go back to demo|2020@{good}: popcorn promote demo --from 'demo|2020@{good}'" in text
    assert actions(store) == ["promote", "refuse", "transfer", "refuse"]
    with pytest.raises(PromotionRefused, match=r"\+300\.0%"):
        promote(store, "demo", "2020", who=WHO)
    assert promote(store, "demo", f"2020@{good}", who=WHO).forced is False
    assert decided(store) == good


def test_a_worse_retraining_does_not_come_back_by_way_of_another_country(home, store):
    """It was never refused: it was trained while the other country's model was in use."""
    train(home, 10.0)
    decided(store)
    within = train(home, 10.4)
    assert decided(store) == within
    abroad = train(home, 12.0, country="rwa")
    configure(home, country="rwa", year=2020)
    assert decided(store) == abroad
    train(home, 10.8)  # within the margin of the last, not of the best
    configure(home, country="demo", year=2020)
    assert decided(store) == abroad
    assert "+8.0%" in left_to_do(store)
    better = train(home, 9.9)
    assert decided(store) == better
    assert read_ledger(store, "demo").entries[-1].margin == 0.05


def test_by_hand_a_refused_model_needs_force_after_a_transfer_too(home, store):
    train(home, 10.0)
    decided(store)
    bad = train(home, 40.0)
    with pytest.raises(PromotionRefused):
        promote(store, "demo", "2020", who=WHO)
    train(home, 12.0, country="rwa")
    promote(store, "demo", "rwa|2020", who=WHO, transfer=True)
    with pytest.raises(PromotionRefused, match=r"\+300\.0%.*\n.*--force"):
        promote(store, "demo", "2020", who=WHO)
    forced = promote(store, "demo", "2020", who=WHO, force=True, reason="lakes")
    assert (forced.action, forced.forced, forced.model.version) == ("transfer", True, bad)


def test_what_was_forced_since_comes_back_with_its_country(home, store):
    train(home, 10.0)
    decided(store)
    bad = train(home, 40.0)
    decided(store)
    promote(store, "demo", "2020", who=WHO, force=True, reason="lakes")
    train(home, 12.0, country="rwa")
    configure(home, country="rwa", year=2020)
    decided(store)
    configure(home, country="demo", year=2020)
    assert decided(store) == bad


def test_a_model_rolled_back_from_is_no_measure_for_what_comes_back(home, store):
    train(home, 10.0, country="rwa")
    promote(store, "demo", "rwa|2020", who=WHO, transfer=True)
    configure(home)
    train(home, 5.0)
    promote(store, "demo", "2020", who=WHO)
    roll_back(store, "demo", who=WHO, reason="lakes are full of people")
    train(home, 20.0)
    assert promote(store, "demo", "2020", who=WHO).forced is False


# All years at once --------------------------------------------------------------------------------


def test_the_rules_leave_the_years_that_somebody_decided_on(home, store):
    train(home, 10.0)
    decided(store, 2022)
    chosen = train(home, 7.0, year=2021)
    promote(store, "demo", "2021", who=WHO, year=2021, reason="much better for 2021")
    retrained = train(home, 9.8)
    assert decided(store, 2022) == retrained
    assert maps(store, 2021) == chosen
    assert decided(store, 2021) == chosen
    assert "--year 2021 --force" in left_to_do(store, 2021)
    best = train(home, 6.0)  # what somebody chose gives way to what is no worse
    assert [decided(store, year) for year in (2022, 2021)] == [best, best]
    assert actions(store)[-2:] == ["promote", "promote"]
    assert read_ledger(store, "demo").entries[-1].year == 2021
    assert [left_to_do(store, year) for year in (2022, 2021)] == ["", ""]


def test_the_order_in_which_years_are_mapped_does_not_matter(home, store):
    train(home, 10.0)
    decided(store, 2022)
    train(home, 7.0, year=2021)
    promote(store, "demo", "2021", who=WHO, year=2021)
    best = train(home, 6.0)
    assert [decided(store, year) for year in (2021, 2022)] == [best, best]


def test_an_explicit_decision_for_all_years_is_for_all_years(home, store):
    train(home, 10.0)
    decided(store, 2022)
    train(home, 7.0, year=2021)
    promote(store, "demo", "2021", who=WHO, year=2021)
    best = train(home, 6.0)
    promote(store, "demo", "2020", who=WHO)
    assert set(read_ledger(store, "demo").standing()) == {None}
    assert maps(store, 2021) == best


@pytest.fixture
def yearly(home, store) -> list[str]:
    """Each year has its own model: 5.0, 5.1, and a forced 20.0 decided last."""
    configure(home)
    versions = [train(home, loss, year=year) for year, loss in ((2019, 5.0), (2020, 5.1))]
    for year in (2019, 2020):
        decided(store, year)
    versions.append(train(home, 20.0, year=2021))
    promote(store, "demo", "2021", who=WHO, year=2021, force=True, reason="other imagery")
    return versions


def test_a_model_for_all_years_is_judged_by_every_year_s(home, store, yearly):
    new = train(home, 19.0, year=2021)
    with pytest.raises(PromotionRefused) as caught:
        promote(store, "demo", "2021", who=WHO)
    text = str(caught.value)
    assert f"for 2019: demo|2021@{new}: held-out loss 19 against 5 of demo|2019@" in text
    assert f"for 2020: demo|2021@{new}: held-out loss 19 against 5.1 of demo|2020@" in text
    assert "for 2021" not in text
    assert [maps(store, year) for year in (2019, 2020)] == yearly[:2]
    assert promote(store, "demo", "2021", who=WHO, year=2021).forced is False
    forced = promote(store, "demo", "2021", who=WHO, force=True, reason="one for all")
    assert (forced.forced, forced.year) == (True, None)


def test_from_the_launchpad_too(home, store, yearly):
    from popcorn_assets.definitions import defs

    train(home, 19.0, year=2021)
    config = {"country": "demo", "source": "2021"}
    with home.instance() as instance:
        run = defs.resolve_job_def("promote_model").execute_in_process(
            run_config={"ops": {"promote_checkpoints": {"config": config}}},
            instance=instance,
            raise_on_error=False,
        )
    assert not run.success
    assert actions(store)[-1] == "refuse"
    assert maps(store, 2019) == yearly[0]


def test_the_rules_put_nothing_worse_in_use_for_any_year_either(home, store):
    configure(home)
    best = train(home, 5.0, year=2019)
    second = train(home, 9.0, year=2020)
    decided(store, 2019)
    promote(store, "demo", "2020", who=WHO, year=2022, force=True, reason="x")
    decide(store, "demo", 2020, who=WHO)
    configure(home, year=2021)
    train(home, 8.0, year=2021)
    decision = decide(store, "demo", 2020, who=WHO)
    assert not decision.settled
    assert in_use(store, 2019) == best
    assert in_use(store, 2022) == second
    good = train(home, 5.1, year=2021)
    assert decided(store, 2020) == good
    assert in_use(store, 2019) == best  # asked by itself when it is mapped next
    assert decided(store, 2019) == good
    assert in_use(store, 2022) == second  # somebody decided on it


def entries(store: Store, start: int = 0) -> list[tuple]:
    """What the ledger's entries decided, and for which year."""
    return [(e.action, e.year, e.model.version) for e in read_ledger(store, "demo").entries[start:]]


@pytest.fixture
def refreshed(home, store) -> dict[int, str]:
    """Each year has its own model, a little worse than the last year's; then 2022's for all."""
    configure(home)
    years = {2019: 10.0, 2020: 10.4, 2021: 10.8, 2022: 11.2}
    versions = {year: train(home, loss, year=year) for year, loss in years.items()}
    for year in years:
        decided(store, year)
    configure(home, country="demo", year=2022)
    return versions


def test_a_yearly_refresh_is_not_held_up_by_an_older_year_s_model(home, store, refreshed):
    """Each year that has a model of its own is asked by itself, and keeps it if it is better."""
    first = refreshed[2022]
    for year in (2022, 2023, 2024):
        assert decided(store, year) == first
        assert left_to_do(store, year) == ""
    assert entries(store, 4) == [("promote", None, first)]
    assert read_ledger(store, "demo").entries[-1].reason.endswith("maps other years already")
    assert decided(store, 2021) == first  # within the margin
    assert decided(store, 2019) == refreshed[2019]
    assert f"--from 'demo|2022@{first}' --year 2019 --force" in left_to_do(store, 2019)
    better = train(home, 10.6, year=2022)
    for year in (2023, 2022, 2024, 2021, 2020):
        assert decided(store, year) == better
        assert left_to_do(store, year) == ""
    assert decided(store, 2019) == refreshed[2019]
    assert in_use(store, 2025) == better
    assert in_use(store, 2019) == refreshed[2019]
    best = train(home, 9.0, year=2022)
    assert [decided(store, year) for year in range(2019, 2025)] == [best] * 6
    ledger = read_ledger(store, "demo")
    assert all(e.against.model != e.model for e in ledger.entries if e.action == "refuse")
    # Only somebody brings them under one decision again.
    train(home, 8.9, year=2022)
    promote(store, "demo", "2022", who=WHO)
    assert set(read_ledger(store, "demo").standing()) == {None}


def test_what_was_refused_for_one_year_comes_back_for_the_others(home, store, refreshed):
    assert decided(store, 2023) == refreshed[2022]
    assert decided(store, 2019) == refreshed[2019]
    abroad = train(home, 12.0, country="rwa")
    configure(home, country="rwa", year=2020)
    assert [decided(store, year) for year in (2019, 2023)] == [abroad, abroad]
    configure(home, country="demo", year=2022)
    assert decided(store, 2023) == refreshed[2022]
    assert decided(store, 2019) == abroad
    assert "was refused by entry" in left_to_do(store, 2019)


def test_nothing_is_refused_for_its_own_sake(home, store, refreshed):
    """By hand, for all years: what stands against it is another year's."""
    with pytest.raises(PromotionRefused, match="for 2019"):
        promote(store, "demo", "2022", who=WHO)
    refused = read_ledger(store, "demo").entries[-1]
    assert (refused.action, refused.model.version) == ("refuse", refreshed[2022])
    assert refused.against.model.version == refreshed[2019]


def test_a_year_with_its_own_line_is_not_judged_by_what_the_others_got(home, store):
    train(home, 10.0)
    decided(store)
    train(home, 9.5, year=2019)
    chosen = promote(store, "demo", "2019", who=WHO, year=2023)
    for loss in (9.0, 9.3):
        other = train(home, loss)
        assert decided(store) == other
    assert decided(store, 2023) == other  # 9.3 is better than the 9.5 that maps 2023
    back = roll_back(store, "demo", who=WHO, reason="lakes", year=2023)
    assert (back.model, back.year) == (chosen.model, 2023)


def test_a_year_is_rolled_back_along_its_own_line(home, store):
    train(home, 10.0)
    decided(store)
    train(home, 9.5, year=2019)
    chosen = promote(store, "demo", "2019", who=WHO, year=2023)
    between = train(home, 9.0)  # for the others
    assert decided(store) == between
    train(home, 8.0, year=2018)
    promote(store, "demo", "2018", who=WHO, year=2023)
    back = roll_back(store, "demo", who=WHO, reason="lakes", year=2023)
    assert (back.model, back.year) == (chosen.model, 2023)


def test_rolling_back_a_year_without_a_model_does_not_condemn_another_year_s(home, store, yearly):
    roll_back(store, "demo", who=WHO, reason="as 2019", to="1", year=2024)
    assert read_ledger(store, "demo").rolled_back_from() == set()
    assert maps(store, 2021) == yearly[2]


# A ledger older than what rests on it -------------------------------------------------------------


def test_a_ledger_from_an_older_backup_is_not_gone_on_with(home, store):
    from popcorn_assets.cli import cli

    train(home, 10.0)
    decided(store, 2022)
    older = ledger_path(store, "demo").read_bytes()
    best = train(home, 7.0, year=2021)
    promote(store, "demo", "2021", who=WHO)
    assert deploy(home, 2022).success
    newer = ledger_path(store, "demo").read_bytes()
    ledger_path(store, "demo").write_bytes(older)

    def remove():
        with removing(store):
            pass

    for attempt in (
        lambda: decided(store, 2022),
        lambda: model_for(store, "demo", 2022),
        lambda: promote(store, "demo", "2020", who=WHO),
        lambda: roll_back(store, "demo", who=WHO, reason="x"),
        lambda: ledger_versions(store),
        remove,
    ):
        with pytest.raises(StoreError, match=r"demo\|2022 rests on entry 2-") as caught:
            attempt()
        assert "at least as new as these models" in str(caught.value)
    assert isinstance(CliRunner().invoke(cli, ["models", "demo"]).exception, StoreError)
    assert ledger_path(store, "demo").read_bytes() == older
    ledger_path(store, "demo").write_bytes(newer)
    assert decided(store, 2022) == best
    # The other way out that the error names: what rests on lost entries is put aside.
    ledger_path(store, "demo").write_bytes(older)
    shutil.move(store.root / "deployed_model" / "demo" / "2022", home.home / "aside")
    assert verify(store, "demo") == []
    assert decided(store, 2022) != best


# A corrected census -------------------------------------------------------------------------------


def census(place: Place, people: dict[str, float], *, year=2020) -> str:
    """The version of census counts of these people, published as the current one."""
    store, address = Store(place.data), Address("census_counts", "demo", year)
    with store.draft(address) as draft:
        rows = [{"number": n, "id": i, "people": p} for n, (i, p) in enumerate(people.items(), 1)]
        (draft / "counts_coarse.json").write_text(json.dumps(rows))
        manifest = {"inputs": [], "parameters": {}, "facts": {}, "checks": [], "run_id": "a test's"}
        return store.publish(address, draft, manifest).version


WRONG = {"0101": 999.0, "0102": 500.0, "0207": 4999.0}
RIGHT = {**WRONG, "0101": 899.0, "0207": 4499.0}
SHIFT = 50 * (math.log(1000 / 900) + math.log(5000 / 4500))
"""By how much a loss may differ on the two held-out units: about 10.5."""


def test_the_shift_of_a_loss_is_bounded_by_the_counts(home, store):
    before = Model(country="demo", year=2020, version=train(home, 9.0, counts=census(home, WRONG)))
    after = Model(country="demo", year=2020, version=train(home, 8.0, counts=census(home, RIGHT)))
    assert held_out_people(store, after) == {"0101": 899.0, "0207": 4499.0}
    metrics, kept = metrics_of(store, after), metrics_of(store, before)
    assert metrics.people != kept.people != ""
    use = InUse(before, kept.as_dict(), entry=None)
    assert loss_shift(store, after, metrics, use) == pytest.approx(SHIFT)
    # |log| differences obey the triangle inequality, whatever the model predicted.
    for predicted in (0, 500, 899, 2000, 1e6):
        losses = [
            50 * abs(math.log(predicted + 1) - math.log(n["0101"] + 1)) for n in (WRONG, RIGHT)
        ]
        assert abs(losses[0] - losses[1]) <= SHIFT / 2 + 1e-9
    old = {key: value for key, value in kept.as_dict().items() if key != "people"}
    entry_without_the_digest = InUse(before, old, entry=None)
    assert loss_shift(store, after, metrics, entry_without_the_digest) == pytest.approx(SHIFT)
    shutil.rmtree(store.folder(Address("census_counts", "demo", 2020)))
    assert loss_shift(store, after, metrics, use) is None


def test_a_correction_of_other_units_changes_nothing(home, store):
    train(home, 10.0, counts=census(home, WRONG))
    decided(store)
    train(home, 10.6, counts=census(home, {**WRONG, "0102": 50.0}))
    decided(store)
    assert actions(store) == ["promote", "refuse"]
    assert "census" not in left_to_do(store)


def test_what_may_be_no_worse_on_a_corrected_census_comes_into_use_with_a_warning(home, store):
    train(home, 20.0, counts=census(home, WRONG))
    decided(store)
    new = train(home, 24.0, counts=census(home, RIGHT))
    row = next(r for r in candidates(store, "demo") if r["version"] == new)
    assert row["against in use"] == "+20.0%, but the census was corrected"
    decision = decide(store, "demo", 2021, who=WHO)
    said = decision.message
    assert not decision.settled
    assert "the census of demo|2020 was corrected between the two" in said
    assert "from 9.464 to 30.54" in said
    assert "popcorn rollback demo" in said
    assert maps(store, 2021) == new
    assert left_to_do(store) == ""
    # From here on losses compare as ever, and the old one does not count.
    train(home, 25.5, counts=census(home, RIGHT))
    assert decided(store) == new
    assert "+6.2%" in left_to_do(store)
    assert "census" not in left_to_do(store)


def test_what_is_worse_on_either_census_is_refused(home, store):
    good = train(home, 20.0, counts=census(home, WRONG))
    decided(store)
    train(home, 40.0, counts=census(home, RIGHT))
    assert decided(store) == good
    with pytest.raises(PromotionRefused, match=r"the census of demo\|2020 was corrected"):
        promote(store, "demo", "2020", who=WHO)


def test_what_is_better_on_either_census_comes_into_use_without_a_word(home, store):
    train(home, 20.0, counts=census(home, WRONG))
    decided(store)
    better = train(home, 9.0, counts=census(home, RIGHT))
    decision = decide(store, "demo", 2021, who=WHO)
    assert (decision.model.version, decision.settled) == (better, True)


def test_what_was_trained_on_the_counts_of_before_needs_force(home, store):
    old = train(home, 20.0, counts=census(home, WRONG))
    new = train(home, 20.5, counts=census(home, RIGHT))
    assert decided(store) == new
    with pytest.raises(PromotionRefused, match="was corrected"):
        promote(store, "demo", f"2020@{old}", who=WHO)
    assert promote(store, "demo", f"2020@{old}", who=WHO, force=True, reason="x").forced


def test_what_somebody_chose_gives_way_to_a_corrected_census_by_hand(home, store):
    old = train(home, 20.0, counts=census(home, WRONG))
    promote(store, "demo", "2020", who=WHO)
    new = train(home, 19.0, counts=census(home, RIGHT))
    assert decided(store) == old  # it may be worse than what was chosen
    assert "the census of demo|2020 was corrected" in left_to_do(store)
    entry = promote(store, "demo", "2020", who=WHO)
    assert (entry.forced, entry.model.version) == (False, new)


def test_counts_that_are_gone_are_said_to_be(home, store):
    counts = census(home, WRONG)
    old = train(home, 20.0, counts=counts)
    decided(store)
    train(home, 19.0, counts=census(home, RIGHT))
    shutil.rmtree(store.folder(Address("census_counts", "demo", 2020)) / counts)
    assert decided(store) == old
    assert "it is not known whether the same people were counted" in left_to_do(store)


def test_a_ledger_from_before_the_people_were_noted_is_read(home, store):
    version = train(home, 20.0, counts=census(home, WRONG))
    decided(store)
    (entry,) = read_ledger(store, "demo").entries
    assert entry.metrics["people"] == metrics_of(store, entry.model).people
    assert Metrics(**{k: v for k, v in entry.metrics.items() if k != "people"}).people == ""
    path = ledger_path(store, "demo")

    def without(content):
        from popcorn_assets.promotion.ledger import _sha256

        del content["entries"][0]["metrics"]["people"]
        content["head"] = _sha256(content["entries"][0])

    rewrite(path, without)
    assert decided(store) == version
    train(home, 20.5, counts=census(home, WRONG))
    assert decided(store) != version  # the counts themselves say that they are the same
    assert left_to_do(store) == ""
