"""Training a member from files to files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml.compute.devices import pick_device
from popcorn_ml.errors import CensusError, ConfigError, TrainingError, WeightsError
from popcorn_ml.model.popcorn import BuiltupExtractor, from_extractor
from popcorn_ml.model.stored import read_card
from popcorn_ml.model.weights import load_extractor, load_occupancy
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training import loop
from popcorn_ml.training.augment import Draw
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.loop import parameter_groups
from popcorn_ml.training.loss import unit_loss
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import SMALLEST_UNIT_PX
from popcorn_ml.training.units import find_units
from tests.training.places import block_units, write_place

pytestmark = pytest.mark.long(30)

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "card.json",
    "history.json",
    "loss.png",
    "occupancy.safetensors",
    "out_of_fold.json",
    "units.json",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def undisturbed(place):
    """Four epochs in one go, for the others to be compared with."""
    torch.set_num_threads(1)
    return train_member(place.spec("undisturbed", epochs=4))


def test_what_a_training_leaves(place, undisturbed, capfd, tmp_path, monkeypatch):
    """Complete files, nothing on the terminal, no lightning_logs."""
    monkeypatch.chdir(tmp_path)
    seen = []
    spec = place.spec("files", about={"country": "demo", "year": 2020}, member=3)
    result = train_member(spec, lambda *a: seen.append(a))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert sorted(p.name for p in result.folder.iterdir()) == FILES
    assert [(done, total) for done, total, _ in seen] == [(1, 2), (2, 2)]
    assert seen[0][2]["seconds"] > 0
    history = json.loads((result.folder / "history.json").read_text())
    assert history == result.history
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert (result.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = read_card(result.weights)
    assert (card["seed"], card["member"], card["epochs"]) == (1600, 3, 2)
    assert card["about"] == {"country": "demo", "year": 2020}
    assert card["metrics"] == history[card["best_epoch"] - 1]
    assert card["hyperparameters"]["gradient_clip"] == 0.01
    assert str(place.folder) not in (result.folder / "card.json").read_text()
    units = json.loads((result.folder / "units.json").read_text())
    assert len(units["trained"]) == result.trained == 12
    assert len(units["held_out"]) == result.held_out == 1
    assert undisturbed.history[:2] == history  # epochs to come change nothing


def test_the_same_seed_gives_the_same_bytes_with_more_threads(place, undisturbed):
    again = train_member(place.spec("again", epochs=4, threads=2))
    assert contents(again.folder) == contents(undisturbed.folder)
    other = train_member(place.spec("other", epochs=1, seed=1601))
    assert other.history[0] != undisturbed.history[0]


def test_a_killed_run_goes_on_to_the_same_bytes(place, undisturbed):
    """SIGKILL in the middle of an epoch; nothing was published until then."""
    spec = place.spec("killed", epochs=4)
    path = Path(spec.work).parent / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_text(spec.to_json())
    run = subprocess.Popen(
        [sys.executable, "-m", "popcorn_ml.training", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert run.stdout is not None
    lines = [json.loads(run.stdout.readline()) for _ in range(2)]
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    run.stdout.close()
    assert [line["done"] for line in lines] == [1, 2]
    assert not Path(spec.out).exists()
    result = train_member(spec)
    assert 2 <= result.resumed_after < 4
    assert contents(result.folder) == contents(undisturbed.folder)


def test_a_finished_training_can_be_prolonged(place, undisturbed):
    train_member(place.spec("prolonged", epochs=2))
    result = train_member(place.spec("prolonged", epochs=4))
    assert result.resumed_after == 2
    assert contents(result.folder) == contents(undisturbed.folder)
    again = train_member(place.spec("prolonged", epochs=4))
    assert again.resumed_after == 4
    assert contents(again.folder) == contents(undisturbed.folder)


@pytest.mark.parametrize("harm", ["of another seed", "too far on", "cut off", "not a checkpoint"])
def test_a_state_that_is_not_this_runs_is_not_taken_up(place, harm):
    seed, epochs = 1601 if harm == "of another seed" else 1600, 2 if harm == "too far on" else 1
    train_member(place.spec(f"state {harm}", epochs=epochs, seed=seed))
    spec = place.spec(f"state {harm}", epochs=1)
    state = Path(spec.work) / "last.ckpt"
    if harm == "cut off":
        state.write_bytes(state.read_bytes()[:5000])
    elif harm == "not a checkpoint":
        state.write_bytes(b"nothing of the kind")
    result = train_member(spec)
    assert (result.resumed_after, result.epochs) == (0, 1)
    assert read_card(result.weights)["seed"] == 1600


def test_it_learns(place):
    """From a first guess four times too high to nearly the census; counts are 10 % noisy."""
    result = train_member(
        place.spec("learns", epochs=12, learning_rate=3e-3, initial_bias=2.0, threads=2)
    )
    assert result.history[0]["train_log_l1"] > 0.3
    assert result.history[-1]["train_log_l1"] < 0.15
    best = result.history[result.best_epoch - 1]
    assert best["held_out_log_l1"] < 0.3
    assert 0.75 < best["held_out_total_ratio"] < 1.33
    rates = [entry["learning_rate"] for entry in result.history]
    expected = [3e-3 * 0.75 ** (epoch // 5) for epoch in range(12)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_fault_10_the_best_epoch_is_what_is_saved(place):
    """At a rate so high that the last epoch is not the best."""
    spec = place.spec(
        "best", epochs=5, learning_rate=0.01, learning_rate_decay=1.0, held_out_share=0.25
    )
    result = train_member(spec)
    losses = [entry["held_out_loss"] for entry in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert result.best_epoch < 5, "the case is not tested: choose another rate"
    assert losses[result.best_epoch - 1] < losses[-1]

    model = load_occupancy(result.weights)
    grid, units = find_units(
        spec.units, spec.builtup, spec.counts, spec.seasons, spec.held_out_share
    )
    samples = Samples(spec, grid, units.held_out)
    total = 0.0
    for unit in units.held_out:
        seen = [
            unit_loss(
                model,
                [lambda k=(unit.number, 0, s): samples.get(k).augmented(Draw(0), "cpu")],
                unit.people,
                unit.pixels,
                0.01,
                None,
            )
            for s in range(4)
        ]
        predicted = np.mean([one.predicted for one in seen])
        occupancy = np.mean([one.occupancy for one in seen])
        total += abs(np.log(predicted + 1) - np.log(unit.people + 1)) + 0.01 * occupancy
    samples.close()
    assert 100 * total / len(units.held_out) == pytest.approx(min(losses), rel=1e-4)


def test_the_last_epoch_can_be_kept_whatever_the_held_out_units_say(place):
    """Where it is not the best; and resumed, it is still the last."""
    spec = place.spec(
        "last",
        epochs=4,
        learning_rate=0.01,
        learning_rate_decay=1.0,
        held_out_share=0.25,
        keep_epoch="last",
    )
    assert train_member(spec).best_epoch == 4
    result = train_member(dataclasses.replace(spec, epochs=5))
    assert (result.resumed_after, result.best_epoch) == (4, 5)
    losses = [entry["held_out_loss"] for entry in result.history]
    assert losses[-1] > min(losses)
    card = read_card(result.weights)
    assert (card["best_epoch"], card["chosen_by"]) == (5, "last epoch")


def test_the_running_mean_of_the_weights_is_kept(place, undisturbed, monkeypatch):
    """Worked out again from the weights after each step; training itself is as without it."""
    spec = place.spec("averaged", epochs=4, average_decay=0.8, keep_epoch="last")
    passed: list[list[torch.Tensor]] = []
    moved = loop.Member.average

    def watched(member, step: int) -> None:
        assert step == len(passed)
        passed.append([p.detach().clone() for p in member.trained_parameters])
        moved(member, step)

    monkeypatch.setattr(loop.Member, "average", watched)
    train_member(dataclasses.replace(spec, epochs=2))
    result = train_member(spec)
    assert result.resumed_after == 2
    assert len(passed) == 4 * 6
    losses = [[entry["train_loss"] for entry in run.history] for run in (result, undisturbed)]
    assert losses[0] == losses[1]

    mean = None
    for step, weights in enumerate(passed):
        decay = min(0.8, (1 + step) / (10 + step))
        if mean is None:
            begun = from_extractor(load_extractor(spec.extractor), 0.0, spec.seed)
            mean = [p.detach().clone() for p in begun.parameters() if p.requires_grad]
            mean[-1].fill_(read_card(result.weights)["initial_bias"])
        mean = [decay * old + (1 - decay) * new for old, new in zip(mean, weights, strict=True)]
    kept = load_occupancy(result.weights)
    found = dict(kept.named_parameters())
    names = [
        n
        for n, p in from_extractor(load_extractor(spec.extractor), 0, 0).named_parameters()
        if p.requires_grad
    ]
    for name, expected, last in zip(names, mean, passed[-1], strict=True):
        torch.testing.assert_close(found[name].detach(), expected, rtol=1e-4, atol=1e-6)
        assert not torch.equal(found[name].detach(), last)


def test_held_out_units_are_never_trained_on(tmp_path):
    """Their counts change nothing but their own scores."""
    place = write_place(tmp_path, block_units(60, 80, 2, 4))
    first = train_member(place.spec("a", epochs=1, held_out_share=0.3))
    held = json.loads((first.folder / "units.json").read_text())["held_out"]
    assert len(held) == 2
    place.write_counts([c | {"people": 100_000} if c["id"] in held else c for c in place.counts])
    second = train_member(place.spec("b", epochs=1, held_out_share=0.3))
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert first.history[0]["train_loss"] == second.history[0]["train_loss"]
    assert first.history[0]["held_out_loss"] != second.history[0]["held_out_loss"]


def test_without_held_out_units_the_last_epoch_is_kept(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))
    result = train_member(place.spec(epochs=3, held_out_share=0))
    assert (result.best_epoch, result.held_out, result.trained) == (3, 0, 2)
    assert read_card(result.weights)["chosen_by"] == "last epoch"


def test_fault_10_large_units_are_trained_on_and_said_so(place, undisturbed):
    result = train_member(place.spec("tiled", epochs=1, max_pixels_per_step=2 * SMALLEST_UNIT_PX))
    assert "00013" in result.tiled
    assert json.loads((result.folder / "units.json").read_text())["tiled"] == list(result.tiled)
    assert result.trained == undisturbed.trained
    assert result.history[0]["train_loss"] == pytest.approx(
        undisturbed.history[0]["train_loss"], rel=1e-3
    )


def test_units_left_out_are_in_the_result(tmp_path):
    place = write_place(tmp_path, block_units(40, 60, 1, 3))
    place.write_counts([*place.counts[:2], {"number": 9, "id": "ghost", "people": 10}])
    result = train_member(place.spec(epochs=1, held_out_share=0))
    assert [(unit.number, unit.id) for unit in result.left_out] == [(9, "ghost"), (3, "")]
    listed = json.loads((result.folder / "units.json").read_text())["left_out"]
    assert [unit["number"] for unit in listed] == [9, 3]


def test_fault_11_the_frozen_extractor_never_runs_in_training(tmp_path, monkeypatch):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))

    def run(*_: object) -> None:
        raise AssertionError("the extractor was run")

    for name in ("forward", "score_unpadded", "logits_unpadded"):
        monkeypatch.setattr(BuiltupExtractor, name, run)
    assert train_member(place.spec(epochs=1)).weights.is_file()


def test_missing_seasons_and_pixels_do_no_harm(tmp_path):
    missing = {"winter": (slice(0, 60), slice(0, 80)), "spring": (slice(0, 13), slice(0, 80))}
    place = write_place(tmp_path, block_units(60, 80, 2, 3), missing=missing)
    result = train_member(place.spec(epochs=2))
    assert all(np.isfinite(list(entry.values())).all() for entry in result.history)


def test_a_loss_that_is_no_number_is_an_error(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))
    spec = place.spec(epochs=50, learning_rate=1e25, held_out_share=0)
    with pytest.raises(TrainingError, match="no longer a number") as raised:
        train_member(spec)
    assert "epoch" in str(raised.value)
    assert raised.value.remedy
    assert not Path(spec.out).exists()


def test_inputs_that_cannot_be_used_leave_nothing(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))
    spec = place.spec()
    with pytest.raises(WeightsError, match="missing"):
        train_member(dataclasses.replace(spec, extractor=str(tmp_path / "none.safetensors")))
    with pytest.raises(CensusError):
        train_member(dataclasses.replace(spec, counts=str(tmp_path / "none.json")))
    with pytest.raises(ConfigError, match="device"):
        train_member(dataclasses.replace(spec, device="abacus"))
    with pytest.raises(ConfigError, match="GPU"):
        pick_device("cuda:99")
    assert not Path(spec.out).exists()


def test_weight_decay_spares_the_last_layer():
    from popcorn_ml.model.popcorn import from_extractor

    model = from_extractor(BuiltupExtractor(), 0.1, 0)
    decayed, spared = parameter_groups(model, 1e-5)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-5, 0.0)
    assert [id(p) for p in spared["params"]] == [id(p) for p in model.head[-1].parameters()]
    names = {id(p): n for n, p in model.named_parameters()}
    assert not any("norm" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + 2 == sum(p.requires_grad for p in model.parameters())


def test_the_command_prints_a_line_an_epoch(tmp_path):
    place = write_place(tmp_path, block_units(40, 60, 1, 3))
    path = tmp_path / "spec.json"
    path.write_text(place.spec(epochs=2).to_json())
    command = [sys.executable, "-m", "popcorn_ml.training", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["done"] for line in lines] == [1, 2, True]
    assert Path(lines[-1]["weights"]).is_file()
    assert set(place.spec().s1) == set(SEASONS)

    path.write_text(json.dumps({"seed": 1}))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 2
    assert "spec.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_progress_bar_leaves_the_lines_whole(tmp_path):
    """Where somebody looks at standard error, and standard output goes elsewhere."""
    place = write_place(tmp_path, block_units(40, 60, 1, 3))
    path = tmp_path / "spec.json"
    path.write_text(place.spec(epochs=1).to_json())
    screen, terminal = os.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # how the end of a terminal reads
            while block := os.read(screen, 4096):
                shown.append(block)

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = subprocess.run(
        [sys.executable, "-m", "popcorn_ml.training", str(path)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        cwd=ROOT,
        timeout=120,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "60"},
    )
    os.close(terminal)
    watcher.join()
    os.close(screen)
    assert done.returncode == 0
    assert "Epoch" in b"".join(shown).decode()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["done"] for line in lines] == [1, True]
