"""Models come into use by recorded decisions: refused, forced, rolled back, and never by accident.

Checkpoints are published through the real store with chosen held-out losses; nothing is trained.
"""

import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import dagster as dg
import pytest
from click.testing import CliRunner

from popcorn_assets.partitions import partition_key
from popcorn_assets.promotion.by_hand import PromotionRefused, promote, roll_back
from popcorn_assets.promotion.candidates import candidates, mapped
from popcorn_assets.promotion.decide import decide, model_for
from popcorn_assets.promotion.ledger import (
    append,
    deciding,
    ledger_path,
    ledger_versions,
    read_ledger,
    removing,
    verify,
)
from popcorn_assets.resources import ComputeResource
from popcorn_assets.store.versions import Address, Store, failed_checks
from popcorn_ml.errors import ConfigError, StoreError
from tests.platforms import Place, enter, make_place
from tests.promotion.models import (
    WHO,
    actions,
    configure,
    decided,
    deploy,
    deployed,
    left_to_do,
    publish,
    rewrite,
    shown,
    train,
    warning,
)

pytestmark = pytest.mark.long(50)


def test_the_first_model_comes_into_use_and_a_second_run_decides_nothing(home, store):
    version = train(home, 10.0)
    first = deploy(home, 2021)
    assert first.success
    assert warning(first) == ""
    (entry,) = read_ledger(store, "demo").entries
    assert (entry.action, entry.model.version, entry.year) == ("promote", version, None)
    assert entry.metrics["loss"] == pytest.approx(10.0)
    assert entry.metrics["total_ratio"] == 1.25  # of the best epoch, not of the last
    assert entry.who == f"run {first.run_id}"
    assert deployed(store)["entry"] == entry.id
    assert shown(first)["ledger entry"] == entry.id
    assert "10" in shown(first)["candidates"]
    again = deploy(home, 2021)
    assert again.success
    assert shown(again)["reused"] is True
    assert decided(store, 2020) == version
    assert len(read_ledger(store, "demo").entries) == 1
    fact = store.latest(Address("deployed_model", "demo", 2021)).manifest()["facts"]
    assert fact["ledger entry"]["who"] == entry.who
    assert verify(store, "demo") == []


def test_the_same_decisions_give_the_same_entry_ids_elsewhere(home, store, tmp_path, monkeypatch):
    train(home, 10.0)
    decided(store)
    other = make_place(tmp_path / "other")
    configure(other, country="demo", year=2020)
    enter(other, monkeypatch)
    train(other, 10.0)
    decide(Store(other.data), "demo", 2020, who="somebody else")
    here, there = (read_ledger(s, "demo").entries[0] for s in (store, Store(other.data)))
    assert here.id == there.id
    assert here.who != there.who


def test_a_worse_model_is_refused_once_and_the_check_says_what_to_do(home, store):
    good = train(home, 10.0)
    decided(store)
    bad = train(home, 13.0)
    result = deploy(home)
    assert result.success
    assert deployed(store)["version"] == good
    for text in (warning(result), left_to_do(store)):
        assert "13" in text
        assert "+30.0%" in text
        assert f"popcorn promote demo --from 'demo|2020@{bad}' --force --reason" in text
    assert actions(store) == ["promote", "refuse"]
    refused = read_ledger(store, "demo").entries[-1]
    assert (refused.model.version, refused.against.model.version) == (bad, good)
    assert (refused.margin, refused.explicit) == (0.05, False)


def test_small_losses_within_the_margin_do_not_add_up(home, store):
    train(home, 10.0)
    decided(store)
    within = train(home, 10.4)
    assert decided(store) == within
    train(home, 10.8)  # 4 % worse than in use, 8 % worse than what was in use before
    assert decided(store) == within
    better = train(home, 8.0)
    assert decided(store) == better
    assert actions(store) == ["promote", "promote", "refuse", "promote"]


def test_the_margin_is_the_countrys(home, store):
    good = train(home, 10.0)
    decided(store)
    worse = train(home, 12.0)
    assert decided(store) == good
    configure(home, country="demo", year=2020, margin=0.25)
    assert decided(store) == worse  # another margin is a new question


def test_an_explicit_promotion_of_a_worse_model_needs_force_and_a_reason(home, store):
    good = train(home, 10.0)
    decided(store)
    bad = train(home, 13.0)
    with pytest.raises(PromotionRefused, match=r"needs a reason"):
        promote(store, "demo", "2020", who=WHO, force=True, reason="  ")
    with pytest.raises(PromotionRefused, match=r"\+30\.0%.*\n.*--force --reason"):
        promote(store, "demo", f"demo|2020@{bad[:6]}", who=WHO)
    assert actions(store) == ["promote", "refuse"]
    assert decided(store) == good
    said = "the old one\n\x1b[2J misses a town"
    entry = promote(store, "demo", "2020", who=WHO, force=True, reason=said)
    assert (entry.action, entry.forced, entry.explicit, entry.who) == ("promote", True, True, WHO)
    assert entry.reason == "the old one  [2J misses a town"
    assert entry.against.model.version == good
    assert decided(store) == bad
    with pytest.raises(ConfigError, match="is in use already"):
        promote(store, "demo", "2020", who=WHO)


def test_force_is_not_noted_where_it_was_not_needed(home, store):
    train(home, 10.0)
    decided(store)
    train(home, 9.0)
    assert promote(store, "demo", "2020", who=WHO, force=True, reason="x").forced is False


def test_a_model_rolled_back_from_never_comes_back_by_itself(home, store):
    first = train(home, 10.0)
    decided(store)
    second = train(home, 9.0)
    assert decided(store) == second
    with pytest.raises(ConfigError, match="needs a reason"):
        roll_back(store, "demo", who=WHO, reason="")
    entry = roll_back(store, "demo", who=WHO, reason="lakes are full of people")
    assert (entry.action, entry.model.version) == ("roll back", first)
    assert decided(store) == first
    assert "was rolled back from and does not come back by itself" in left_to_do(store)
    worse_than_chosen = train(home, 10.2)  # within the margin, but somebody chose the other
    assert decided(store) == first
    better = train(home, 9.5)
    assert decided(store) == better
    assert worse_than_chosen != better
    back = roll_back(store, "demo", who=WHO, reason="see above", to=second)
    assert back.model.version == second
    assert roll_back(store, "demo", who=WHO, reason="first", to="1").model.version == first
    assert roll_back(store, "demo", who=WHO, reason="x", to=back.id).model.version == second


def test_going_back_needs_something_to_go_back_to(home, store):
    with pytest.raises(ConfigError, match="no model was ever in use"):
        roll_back(store, "demo", who=WHO, reason="x")
    version = train(home, 10.0)
    decided(store)
    with pytest.raises(ConfigError, match=f"nothing before demo.2020@{version}"):
        roll_back(store, "demo", who=WHO, reason="x")
    with pytest.raises(ConfigError, match="no entry put '7' in use"):
        roll_back(store, "demo", who=WHO, reason="x", to="7")
    newer = train(home, 9.0)
    decided(store)
    shutil.rmtree(store.folder(Address("checkpoints", "demo", 2020)) / version)
    with pytest.raises(StoreError, match="is not in the store"):
        roll_back(store, "demo", who=WHO, reason="x")
    assert decided(store) == newer
    assert verify(store, "demo") == [f"demo|2020@{version} is no longer in the store"]


def test_a_transfer_is_stated_and_its_metrics_are_not_compared(home, store):
    own = train(home, 10.0)
    decided(store)
    abroad = train(home, 50.0, country="rwa", year=2022)
    with pytest.raises(PromotionRefused, match="trained in another country") as caught:
        promote(store, "demo", "rwa|2022", who=WHO)
    assert "--transfer" in str(caught.value)
    assert str(home.home / "countries" / "demo.yaml") in str(caught.value)
    assert decided(store) == own
    entry = promote(store, "demo", "rwa|2022", who=WHO, transfer=True)
    assert (entry.action, entry.margin, entry.model.version) == ("transfer", None, abroad)
    assert decided(store) == abroad
    assert left_to_do(store) == ""  # it was decided so
    train(home, 9.0)  # at home again: nothing to compare with, and the file has not changed
    assert decided(store) == abroad
    configure(home, year=2020)  # says the same
    assert decided(store) == abroad
    home_again = promote(store, "demo", f"2020@{own}", who=WHO)
    assert (home_again.action, home_again.margin) == ("transfer", None)


def test_the_countrys_file_states_a_transfer(home, store):
    train(home, 10.0)
    abroad = train(home, 50.0, country="rwa", year=2022)
    decided(store)
    configure(home, country="rwa", year=2022)
    result = deploy(home)
    assert shown(result)["from another country"] is True
    assert (deployed(store)["country"], deployed(store)["version"]) == ("rwa", abroad)
    assert actions(store) == ["promote", "transfer"]
    newer = train(home, 49.0, country="rwa", year=2022)
    assert decided(store) == newer
    train(home, 60.0, country="rwa", year=2022)
    assert decided(store) == newer
    assert actions(store) == ["promote", "transfer", "promote", "refuse"]


def test_a_year_never_trained_names_the_key_the_file_and_what_there_is(home, store):
    configure(home)
    train(home, 10.0, year=2019)
    train(home, 10.0, country="rwa", year=2022)
    with pytest.raises(StoreError) as caught:
        model_for(store, "demo", 2021)
    text = str(caught.value)
    assert "no model maps demo|2021" in text
    assert (
        f"in {home.home / 'countries' / 'demo.yaml'}: `model: {{country: demo, year: 2019}}`"
        in text
    )
    assert "popcorn promote demo --from 'demo|2019' --year 2021" in text
    assert "demo|2019@" in text
    assert "rwa|2022@" in text
    assert not ledger_path(store, "demo").exists()
    result = deploy(home)
    assert not result.success
    (failure,) = (e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    error = failure.step_failure_data.error
    assert "`model: {country: demo, year: 2019}`" in (error.cause or error).message


def test_asking_which_model_would_map_writes_nothing(home, store):
    version = train(home, 10.0)
    asked = model_for(store, "demo", 2021)
    assert (asked.model.version, asked.entry, asked.action) == (version, None, "promote")
    assert not ledger_path(store, "demo").exists()
    decided(store)
    assert model_for(store, "demo", 2021).entry == read_ledger(store, "demo").entries[0].id


def test_by_hand_nothing_comes_into_use_by_itself(home, store):
    configure(home, country="demo", year=2020, promotion="manual")
    first = train(home, 10.0)
    with pytest.raises(StoreError, match=r"waits for a decision: popcorn promote demo"):
        decided(store)
    promote(store, "demo", "2020", who=WHO)
    assert decided(store) == first
    better = train(home, 5.0)
    assert decided(store) == first
    assert f"demo|2020@{better} waits for a decision" in left_to_do(store)
    assert actions(store) == ["promote"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"level": "fine"}, "trained on level 'fine', not 'coarse'"),
        ({"held_out": ["0101"]}, "they hold out different census units"),
        ({"held_out": []}, "one of them has no held-out loss"),
        ({"chosen_by": "last epoch"}, "epochs were chosen by last epoch, not by held_out_loss"),
    ],
)
def test_what_cannot_be_compared_is_refused_until_somebody_forces_it(home, store, changed, why):
    first = train(home, 10.0)
    decided(store)
    other = train(home, **{"loss": 5.0, **changed})
    assert other != first
    assert decided(store) == first
    assert why in left_to_do(store)
    with pytest.raises(PromotionRefused):
        promote(store, "demo", "2020", who=WHO)
    assert promote(store, "demo", "2020", who=WHO, force=True, reason="new units").forced
    assert decided(store) == other


def test_checkpoints_that_failed_a_check_are_not_deployed(home, store):
    first = train(home, 10.0)
    decided(store)
    bad = train(home, 5.0)
    path = store.latest(Address("checkpoints", "demo", 2020)).path / "manifest.json"
    failed = {"name": "finite", "passed": False, "severity": "error", "message": "no", "rows": []}
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": [failed]}))
    assert decided(store) == first
    assert f"demo|2020@{bad} did not pass its checks (finite)" in left_to_do(store)
    with pytest.raises(StoreError, match="did not pass its checks"):
        promote(store, "demo", "2020", who=WHO, force=True, reason="x")


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_what_is_no_number_is_refused_and_cannot_be_forced(home, store, what):
    """Also where the manifest does not say so yet: checkpoints of earlier versions of the code."""
    import numpy as np

    first = train(home, 10.0)
    decided(store)
    changed = {"loss": float("nan")} if what == "loss" else {"weight": np.nan}
    bad = train(home, **{"loss": 9.0, **changed})
    assert decided(store) == first
    assert f"demo|2020@{bad} is refused: a loss or weight of it is not a number" in left_to_do(
        store
    )
    assert "--force" not in left_to_do(store)
    with pytest.raises(StoreError, match=r"did not pass its checks[^$]*finite_training"):
        promote(store, "demo", "2020", who=WHO, force=True, reason="x")
    assert actions(store) == ["promote", "refuse"]


def test_a_model_that_turned_out_to_be_no_number_is_not_gone_back_to(home, store):
    import numpy as np
    from safetensors.numpy import save_file

    first = train(home, 10.0)
    decided(store)
    train(home, 9.0)
    decided(store)
    folder = store.folder(Address("checkpoints", "demo", 2020)) / first / "member_1600"
    save_file({"w": np.array([np.inf])}, folder / "occupancy.safetensors")
    with pytest.raises(StoreError, match="did not pass its checks"):
        roll_back(store, "demo", who=WHO, reason="x")
    assert actions(store) == ["promote", "promote"]


def test_a_candidate_that_cannot_be_read_does_not_stop_the_maps(home, store):
    first = train(home, 10.0)
    decided(store)
    train(home, 5.0)
    store.latest(Address("checkpoints", "demo", 2020)).file("member_1600/history.json").write_text(
        ""
    )
    assert decided(store) == first
    assert "cannot be considered" in left_to_do(store)


def test_without_a_fixed_year_each_year_has_its_own_model(home, store):
    configure(home)
    y2019, y2020 = train(home, 10.0, year=2019), train(home, 10.3, year=2020)
    assert decided(store, 2019) == y2019
    assert decided(store, 2020) == y2020
    assert decided(store, 2019) == y2019  # the newer year's does not take over the older's
    assert [entry.year for entry in read_ledger(store, "demo").entries] == [2019, 2020]
    bad = train(home, 20.0, year=2021)
    for _ in range(2):
        decision = decide(store, "demo", 2021, who=WHO)
        assert decision.model.version == y2020  # the nearest year's, as it is no worse
        assert not decision.settled
        assert f"--from 'demo|2021@{bad}' --year 2021" in decision.message
    assert actions(store) == ["promote", "promote", "refuse"]
    good = train(home, 9.0, year=2021)
    assert decided(store, 2021) == good
    assert decided(store, 2020) == y2020
    with pytest.raises(StoreError, match=r"no model maps demo\|2022"):
        decided(store, 2022)
    promote(store, "demo", "2021", who=WHO)  # for all years
    assert [decided(store, y) for y in (2019, 2020, 2021, 2022)] == [good] * 4
    entry = roll_back(store, "demo", who=WHO, reason="too coarse for 2019", to="1")
    assert (entry.year, entry.model.version) == (2019, y2019)
    assert decided(store, 2019) == y2019
    assert decided(store, 2020) == good


def test_a_year_is_not_judged_by_the_models_of_another(home, store):
    configure(home)
    train(home, 12.0, year=2021)
    decided(store, 2021)
    train(home, 10.0, year=2019)
    decided(store, 2019)
    better = train(home, 11.0, year=2021)
    assert decided(store, 2021) == better
    train(home, 11.5, year=2021)  # within the margin of what maps 2021
    last = train(home, 11.9, year=2021)  # not within that of the best that did
    assert decided(store, 2021) == better
    promote(store, "demo", f"2019@{train(home, 9.0, year=2019)}", who=WHO, year=2019)
    assert promote(store, "demo", f"2021@{train(home, 10.9, year=2021)}", who=WHO, year=2021)
    assert last not in {entry.model.version for entry in read_ledger(store, "demo").placed()}


@pytest.fixture(scope="module")
def decisions(tmp_path_factory) -> Place:
    """A platform with three entries in its ledger, the last of which a deployed model keeps."""
    place = make_place(tmp_path_factory.mktemp("decisions") / "home")
    configure(place, country="demo", year=2020)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(place, monkeypatch)
        train(place, 10.0)
        decided(Store(place.data))
        train(place, 13.0)
        decided(Store(place.data))
        promote(Store(place.data), "demo", "2020", who=WHO, force=True, reason="because")
        assert deploy(place).success
    return place


@pytest.fixture
def three(home, store, decisions):
    """The ledger of a copy of it."""
    for name in ("checkpoints", "deployed_model", "deployments"):
        shutil.copytree(decisions.data / name, home.data / name)
    assert len(read_ledger(store, "demo").entries) == 3
    return ledger_path(store, "demo")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["entries"][0]["metrics"].update(loss=1.0),
        lambda c: c["entries"][1].update(reason="all well"),
        lambda c: c["entries"][2].update(who="user nobody"),
        lambda c: c["entries"][2].update(who="\ud800"),
        lambda c: c["entries"][2].update(forced=False),
        lambda c: c["entries"][2].update(forced=1),
        lambda c: c.update(note="x"),
        lambda c: c["entries"].pop(1),
        lambda c: c["entries"].pop(),
        lambda c: c["entries"].clear(),
        lambda c: c["entries"].reverse(),
        lambda c: c.update(country="rwa"),
        lambda c: c["entries"][0].update(action="approve"),
        lambda c: c["entries"][0].pop("who"),
    ],
    ids=range(14),
)
def test_an_altered_ledger_is_found_and_not_gone_on_with(home, store, three, change):
    rewrite(three, change)
    assert verify(store, "demo")
    before = three.read_bytes()
    for attempt in (
        lambda: decided(store),
        lambda: model_for(store, "demo", 2021),
        lambda: roll_back(store, "demo", who=WHO, reason="x"),
        lambda: ledger_versions(store),
    ):
        with pytest.raises(StoreError, match="cannot be trusted"):
            attempt()
    assert three.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "\x00\xff", '{"schema": 9}'])
def test_a_ledger_that_is_none_is_an_error_and_stays(home, store, three, text):
    three.write_text(text)
    with pytest.raises(StoreError, match="cannot be trusted") as caught:
        decided(store)
    assert str(three) in str(caught.value)
    assert three.read_text() == text


def test_a_ledger_gone_or_written_anew_is_found_by_what_rests_on_it(home, store, three):
    three.unlink()
    with pytest.raises(StoreError, match=r"missing, and deployed_model demo\|2021 rest on it"):
        decided(store)
    assert verify(store, "demo")
    with pytest.raises(StoreError, match="missing"):
        ledger_versions(store)
    # Somebody writes a ledger that is whole in itself: other decisions, no forced one.
    three.write_text(json.dumps(_forged(store, three)))
    (problem,) = verify(store, "demo")
    assert "deployed_model demo|2021 rests on entry 3-" in problem
    with pytest.raises(StoreError, match=r"demo\|2021 rests on entry 3-"):
        decided(store)


def _forged(store, path):
    other = Store(store.root.parent / "elsewhere")
    shutil.copytree(store.root / "checkpoints", other.root / "checkpoints")
    decide(other, "demo", 2021, who=WHO)
    return json.loads(ledger_path(other, "demo").read_text())


DECIDE = """
import sys
from popcorn_assets.promotion.decide import decide
from popcorn_assets.store.versions import Store
for year in map(int, sys.argv[2:]):
    assert decide(Store(sys.argv[1]), "demo", year, who="a process").model.year == year
"""


def test_decisions_taken_at_once_all_get_into_the_ledger(home, store):
    """Two processes, six years, opposite orders: every year gets its own, once."""
    configure(home, margin=1.0)
    years = [2017, 2018, 2019, 2020, 2021, 2022]
    for i, year in enumerate(years):
        train(home, 10.0 + i, year=year)
    command = [sys.executable, "-c", DECIDE, str(store.root)]
    running = [
        subprocess.Popen([*command, *map(str, order)], cwd=home.home)
        for order in (years, years[::-1])
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    entries = read_ledger(store, "demo").entries
    assert sorted(entry.year for entry in entries) == years
    assert verify(store, "demo") == []


def test_one_process_s_threads_take_turns_too(home, store):
    train(home, 10.0)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda i: decided(store, 2016 + i % 6), range(24)))
    assert len(made) == 1
    assert actions(store) == ["promote"]


def test_a_writer_that_fails_leaves_the_ledger_as_it_was(home, store):
    train(home, 10.0)
    decided(store)
    before = ledger_path(store, "demo").read_bytes()
    first = read_ledger(store, "demo").entries[0]
    with pytest.raises(ValueError), deciding(store, "demo") as ledger:
        append(
            ledger, action="refuse", year=None, model=first.model, metrics={"loss": object()},
            against=None, margin=None, configured={}, who=WHO, reason="",
        )  # fmt: skip
    assert ledger_path(store, "demo").read_bytes() == before
    assert [p.name for p in ledger_path(store, "demo").parent.glob("*.json")] == ["demo.json"]


def test_every_version_that_a_ledger_names_is_kept(home, store):
    versions = [train(home, loss) for loss in (10.0, 13.0)]
    train(home, 12.0)
    promote(store, "demo", f"2020@{versions[0]}", who=WHO)
    with pytest.raises(PromotionRefused):
        promote(store, "demo", f"2020@{versions[1]}", who=WHO)
    assert ledger_versions(store) == {(Address("checkpoints", "demo", 2020), v) for v in versions}


def test_what_is_promoted_while_gc_runs_stays(home, store):
    from popcorn_assets.upkeep.plan import plan
    from popcorn_assets.upkeep.removal import apply

    old, other = train(home, 10.0), train(home, 11.0)
    decided_on = train(home, 9.0)
    assert decided(store) == decided_on
    planned = plan(store, older_than_days=0, ledger=ledger_versions(store))
    assert {removal.version.version for removal in planned.removals} == {old, other}
    promote(store, "demo", f"2020@{old}", who=WHO, force=True, reason="lakes")
    told = {removal.version.version: problem for removal, problem in apply(store, planned.removals)}
    assert told == {old: "a promotion names it by now", other: None}
    assert decided(store) == old
    assert verify(store, "demo") == []


def test_what_gc_removes_while_it_is_being_promoted_is_not_promoted(home, store, monkeypatch):
    from popcorn_assets.promotion import by_hand

    old = train(home, 10.0)
    train(home, 9.0)
    decided(store)
    chosen, choose = Event(), by_hand._chosen

    def choosing(*arguments):
        found = choose(*arguments)
        chosen.set()
        return found

    monkeypatch.setattr(by_hand, "_chosen", choosing)
    with ThreadPoolExecutor(1) as pool:
        with removing(store) as named:
            assert (Address("checkpoints", "demo", 2020), old) not in named
            asked = pool.submit(
                promote, store, "demo", f"2020@{old}", who=WHO, force=True, reason="x"
            )
            assert chosen.wait(30)
            shutil.rmtree(store.folder(Address("checkpoints", "demo", 2020)) / old)
        with pytest.raises(StoreError, match="is not in the store"):
            asked.result(30)
    assert actions(store) == ["promote"]


@pytest.mark.parametrize("source", ["", "2020@", "demo", "demo|20", "../x|2020", "demo|2020@ffff"])
def test_checkpoints_that_there_are_none_of_are_refused(home, store, source):
    train(home, 10.0)
    with pytest.raises((ConfigError, StoreError)):
        promote(store, "demo", source, who=WHO)
    assert not ledger_path(store, "demo").exists()


def test_the_commands_list_promote_and_roll_back(home, store):
    from popcorn_assets.cli import cli

    def popcorn(*arguments):
        return CliRunner().invoke(cli, arguments)

    first = train(home, 10.0)
    deploy(home)
    second = train(home, 13.0)
    listed = json.loads(popcorn("models", "demo", "--json").stdout)
    states = {row["version"]: row for row in listed["candidates"]}
    assert states[first]["state"] == "in use: all years"
    assert states[second]["state"] == "candidate"
    assert states[second]["against in use"] == "+30.0%"
    refused = popcorn("promote", "demo", "--from", "2020")
    assert isinstance(refused.exception, PromotionRefused)
    done = popcorn("promote", "demo", "--from", "demo|2020", "--force", "--reason", "new units")
    assert done.exit_code == 0, done.output
    assert second in done.output
    table = popcorn("models", "demo").output
    assert "promote (forced)" in table
    assert "new units" in table
    assert "Mapped by an earlier decision: 2021" in table
    assert popcorn("rollback", "demo").exit_code == 2  # no reason
    assert popcorn("rollback", "demo", "--reason", "no better").exit_code == 0
    assert actions(store) == ["promote", "refuse", "promote", "roll back"]
    assert "user" in read_ledger(store, "demo").entries[-1].who
    (row,) = mapped(store, "demo")
    assert (row["model"], row["as decided"]) == (f"demo|2020@{first}", False)
    assert [row["state"] for row in candidates(store, "demo") if row["version"] == second] == [
        "rolled back from"
    ]


def test_the_launchpad_promotes_and_rolls_back(home, store):
    from popcorn_assets.definitions import defs

    def launch(job, op, **config):
        with home.instance() as instance:
            return defs.resolve_job_def(job).execute_in_process(
                run_config={"ops": {op: {"config": {"country": "demo", **config}}}},
                instance=instance,
                raise_on_error=False,
            )

    def promotes(**config):
        return launch("promote_model", "promote_checkpoints", source="demo|2020", **config)

    first = train(home, 10.0)
    decided(store)
    second = train(home, 13.0)
    assert not promotes().success
    assert not promotes(force=True).success
    forced = promotes(force=True, reason="new units", who="Ada")
    assert forced.success
    entry = read_ledger(store, "demo").entries[-1]
    assert (entry.model.version, entry.forced) == (second, True)
    assert entry.who == f"Ada, run {forced.run_id}"
    back = launch("roll_back_model", "roll_back_checkpoints", reason="no better")
    assert back.success
    assert read_ledger(store, "demo").entries[-1].model.version == first


def retrained(place: Place, store: Store, loss: float) -> str:
    """The small country's checkpoints again: other weights, and a held-out loss as chosen."""
    from popcorn_ml.model.stored import OCCUPANCY_FILE, read_card
    from popcorn_ml.model.weights import load_occupancy, save_occupancy

    old = store.latest(Address("checkpoints", "demo", 2020))
    seeds = old.manifest()["facts"]["seeds"]

    def write(folder):
        for seed in seeds:
            name = f"member_{seed}"
            shutil.copytree(old.path / name, folder / name)
            model, card = load_occupancy(old.path / name), read_card(old.path / name)
            for parameter in model.head[-1].parameters():
                parameter.data *= 1 + loss / 1000
            save_occupancy(model, folder / name / OCCUPANCY_FILE, card)
            history = json.loads((old.path / name / "history.json").read_text())
            history[card["best_epoch"] - 1]["held_out_loss"] = loss
            (folder / name / "history.json").write_text(json.dumps(history))
            unseen = json.loads((old.path / name / "out_of_fold.json").read_text())
            for unit in unseen["units"]:
                far = loss / 100 - 0.01 * unit["occupancy"]
                unit["predicted"] = (unit["people"] + 1) * math.exp(far) - 1
            (folder / name / "out_of_fold.json").write_text(json.dumps(unseen))
        return seeds

    return publish(place, write, parameters=old.manifest()["parameters"])


@pytest.mark.timeout(300)
def test_trained_weights_that_are_no_number_never_come_into_use(tiny, tmp_path, monkeypatch):
    """Really trained members, one of whose files was spoilt before they were collected."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from popcorn_assets.definitions import defs
    from popcorn_assets.runs import launch

    place = Place(tmp_path / "home")
    shutil.copytree(tiny.home, place.home)
    enter(place, monkeypatch)
    store, train_member = Store(place.data), launch.train_member
    good = store.latest(Address("checkpoints", "demo", 2020))
    (kept,) = good.manifest()["checks"]
    assert (kept["name"], kept["passed"]) == ("finite_training", True)
    assert kept["metadata"]["weights"] > 10_000

    def spoilt(context, compute, spec):
        trained = train_member(context, compute, spec)
        path = f"{spec.out}/occupancy.safetensors"
        save_file({n: v * np.float32("nan") for n, v in load_file(path).items()}, path)
        return trained

    monkeypatch.setattr(launch, "train_member", spoilt)
    with place.instance() as instance:
        dg.materialize(
            [*defs.assets],
            selection=["checkpoints"],
            partition_key=partition_key("demo", 2020),
            instance=instance,
            resources={**defs.resources, "compute": ComputeResource(launcher="inline")},
            raise_on_error=False,
        )
    assert store.latest(good.address).version == good.version
    bad = store.rejected(good.address)
    assert bad is not None
    assert [check["name"] for check in failed_checks(bad)] == ["finite_training"]
    assert decided(store) == good.version
    with pytest.raises(StoreError, match="did not pass its checks"):
        promote(store, "demo", f"2020@{bad.version}", who=WHO, force=True, reason="x")
    assert decided(store) == good.version


@pytest.mark.timeout(300)
def test_the_map_names_its_model_refused_forced_and_rolled_back(tiny, tmp_path, monkeypatch):
    """On the small country, by the real network: the metadata and the raster say which model."""
    import rasterio

    place = Place(tmp_path / "home")
    shutil.copytree(tiny.home, place.home)
    enter(place, monkeypatch)
    store = Store(place.data)
    first = store.latest(Address("checkpoints", "demo", 2020)).version
    loss = read_ledger(store, "demo").entries[0].metrics["loss"]
    assert read_ledger(store, "demo").entries[0].metrics["people"]  # what it was measured against

    def map_of_2021() -> tuple[str, str]:
        """Its model's version and its people, as metadata, raster and manifest agree on them."""
        result = deploy(place, 2021, also=["population_map", "adjusted_map", "hectare_map"])
        assert result.success
        entry = read_ledger(store, "demo").find(deployed(store)["entry"])
        title = f"demo|2020, version {entry.model.version}"
        for asset in ("population_map", "adjusted_map", "hectare_map"):
            metadata = shown(result, asset)
            assert (metadata["model"], metadata["ledger entry"]) == (title, entry.id)
            version = store.latest(Address(asset, "demo", 2021))
            with rasterio.open(version.file("population.tif")) as file:
                tags = file.tags()
            assert (tags["model"], tags["ledger_entry"]) == (title, entry.id)
        inputs = store.latest(Address("population_map", "demo", 2021)).manifest()["inputs"]
        assert entry.model.version in {i["version"] for i in inputs}
        return entry.model.version, shown(result, "population_map")["people on the grid"]

    version, people = map_of_2021()
    assert version == first
    worse = retrained(place, store, loss * 1.5)
    assert map_of_2021() == (first, people)  # refused
    promote(store, "demo", "2020", who=WHO, force=True, reason="a test")
    version, others = map_of_2021()  # forced
    assert version == worse
    assert others != people
    roll_back(store, "demo", who=WHO, reason="a test")
    assert map_of_2021() == (first, people)
    assert actions(store) == ["promote", "refuse", "promote", "roll back"]
    assert verify(store, "demo") == []
