"""Which runs a slice may begin: those whose checkpoints have room in the files that come back."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from experiments.carried import checkpoint_size, next_with_room, without_room
from experiments.store import Store
from tests import made_up
from tests.experiments.bundles.conftest import PROTOCOL, begin
from xnets.models import ModelSpec
from xnets.training import Run
from xnets.training.loop import build_run

RUNS = [Run(ModelSpec("MobileNet-0.5"), "digits", "0" * 64, PROTOCOL, seed, seed) for seed in range(4)]
SMALL = Run(ModelSpec("X-MobileNet-0.5-8"), "digits", "0" * 64, PROTOCOL, 0, 0)
ONE_MIB = checkpoint_size(RUNS[0]) / 2**20 + 0.05  # a file that has room for one of RUNS


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def next_one(store):
    """next_one(waiting, under_way, files): of RUNS and SMALL, with files for one of RUNS each."""
    return lambda waiting, under_way, files: next_with_room(store, waiting, under_way, [*RUNS, SMALL], ONE_MIB, files)


@pytest.mark.parametrize("name", ["MobileNet-0.5", "X-MobileNet-0.5-8", "G-MobileNet-0.5-4", "X-VGG16-1", "VGG16"])
def test_a_checkpoint_is_no_larger_than_expected_nor_much_smaller(tmp_path, name):
    """Against one with all that the training loop puts into it (tests/training checks that it is all)."""
    run = Run(ModelSpec(name), "digits", "0" * 64, replace(PROTOCOL, epochs=300), 0, 0)
    model = build_run(run, torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    record = {"epoch": 299, "lr": 0.1 / 3, "train_loss": 1 / 3, "train_top1": 100 / 3, "test_loss": 1 / 3}
    state = {
        "fingerprint": run.fingerprint, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {},
        "history": [{**record, "test_top1": 100 / 3}] * 300, "step": 0, "sums": torch.zeros(2),
        "rng": {"cpu": torch.get_rng_state()},
    }  # fmt: skip
    torch.save(state, tmp_path / "checkpoint.pt")
    assert 0.8 < (tmp_path / "checkpoint.pt").stat().st_size / checkpoint_size(run) <= 1


def test_the_first_one_that_has_room_is_next(next_one):
    assert next_one(RUNS, [], 1) == (RUNS[0], "")
    assert next_one(RUNS[1:], RUNS[:1], 2) == (RUNS[1], "")
    run, reason = next_one(RUNS[1:], RUNS[:1], 1)
    assert run is None
    assert reason.startswith(f"{RUNS[1].label}: 1 files of")
    run, reason = next_one([*RUNS[1:], SMALL], RUNS[:1], 2)
    assert (run, reason) == (RUNS[1], "")


def test_a_smaller_one_does_not_wait_for_a_larger_one(store):
    runs, mib = [*RUNS, SMALL], (checkpoint_size(RUNS[0]) + checkpoint_size(SMALL)) / 2**20 + 0.05
    run, reason = next_with_room(store, runs[1:], RUNS[:1], runs, mib, 1)
    assert run == SMALL
    assert reason.startswith(f"{RUNS[1].label}: 1 files")


def test_a_run_with_a_checkpoint_keeps_its_room(store, next_one):
    """The one before it in the list has none yet, and would take it."""
    begin(store, RUNS[1], 1, step=0)
    assert next_one(RUNS, [], 1)[0] == RUNS[1]


def test_a_finished_run_needs_no_room_for_a_checkpoint(store, next_one):
    made_up.finish(store, RUNS[0], 50.0)
    begin(store, RUNS[0], 1, step=0)  # not deleted yet
    assert next_one(RUNS[1:], [], 1) == (RUNS[1], "")


def test_the_checkpoint_of_a_run_that_failed_gives_way(store, next_one):
    begin(store, RUNS[0], 1, step=0)
    store.write_failure(RUNS[0], "it diverged")
    assert next_one([*RUNS[1:], RUNS[0]], [], 1) == (RUNS[1], "")
    assert next_one([RUNS[0]], [], 1) == (RUNS[0], "")


def test_what_has_no_room_is_named(store):
    padding = bytes(checkpoint_size(RUNS[0]))
    for run in RUNS[:3]:
        begin(store, run, 1, 0, padding)
    left_out = partial(without_room, store, RUNS)
    assert list(left_out(ONE_MIB + 0.1, 2)) == [RUNS[2]]
    store.write_failure(RUNS[0], "it diverged")
    assert list(left_out(ONE_MIB + 0.1, 2)) == [RUNS[0]]
    assert left_out(ONE_MIB + 0.1, 3) == {}
