"""The run store: a run is done when a valid result with its fingerprint is there, and damage is never passed over."""

import errno
import json
import subprocess
import sys

import pytest
import torch

from experiments.execute import execute
from experiments.sound import sound_evaluation, sound_result
from experiments.store import Store
from tests import made_up
from xnets.errors import CannotWrite, Stopped, XNetsError


def test_a_result_comes_back(store, run):
    assert store.result(run) is None
    store.write_failure(run, "it rained")
    assert store.failure(run) == "it rained"
    store.write_result(run, {"epochs": [1, 2]})
    assert store.result(run) == {"fingerprint": run.fingerprint, "epochs": [1, 2]}
    assert store.failure(run) is None
    store.write_evaluation(run, {"top1": 5.0})
    assert store.evaluation(run)["top1"] == 5.0


@pytest.mark.parametrize("content", ["", '{"fingerprint": "', "[]", "\x00\x01"])
def test_a_truncated_result_is_named(store, run, content):
    store.write_result(run, {})
    path = store.folder(run) / "result.json"
    path.write_text(content)
    with pytest.raises(XNetsError, match=r"result\.json is damaged: delete it"):
        store.result(run)


def test_another_runs_result_is_refused(store, run, tiny_plan):
    other = tiny_plan.runs()[1]
    store.write_result(other, {})
    store.folder(run).mkdir(parents=True)
    (store.folder(other) / "result.json").rename(store.folder(run) / "result.json")
    with pytest.raises(XNetsError, match="another run"):
        store.result(run)


def test_a_read_only_place_is_named(store, run, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(XNetsError, match="Read-only file system"), store.lock():
        pass
    with pytest.raises(XNetsError, match="Read-only file system"):
        store.write_result(run, {})


HOLD = """
import sys, time
from pathlib import Path
from experiments.store import Store
with Store(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_one_process_trains_and_a_killed_one_lets_go(store, repository):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True, cwd=repository
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(XNetsError, match=f"Process {holder.pid} is already training"), store.lock(patience=0.3):
            pass
    finally:
        holder.kill()
        holder.wait()
    with store.lock(patience=0.3):
        pass


def test_a_disk_without_locks_is_used_all_the_same(store, monkeypatch):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with store.lock():
        pass


def test_a_full_disk_is_told_before_anything_is_trained(store, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(XNetsError, match=r"No space left on device.*another store"), store.lock():
            pass
    assert not (store.root / ".probe").exists()
    with store.lock(), pytest.raises(XNetsError, match="already training"), Store(store.root).lock(patience=0):
        pass


def test_json_in_the_store_is_readable_by_others(store, run):
    store.write_result(run, {"run": run.to_dict()})
    said = json.loads((store.folder(run) / "result.json").read_text())
    assert said["run"]["model"]["name"] == run.model.name


def test_an_evaluation_does_not_outlive_its_network(store, run, tiny):
    """Who deletes only result.json has the run trained again: the old evaluation is gone before that begins."""
    store.write_evaluation(run, {"top1": 5.0})
    with pytest.raises(Stopped):
        execute("train", run, store, tiny.data_folder, torch.device("cpu"), 60, stop=lambda: True)
    assert store.evaluation(run) is None


def test_a_result_that_cannot_be_written_costs_no_training(store, run, tiny, monkeypatch):
    """The checkpoint stays until there is a result."""
    where = (store, tiny.data_folder, torch.device("cpu"), 0)
    asked = iter([False] * 3)
    with pytest.raises(StopIteration):  # as if killed
        execute("train", run, *where, stop=lambda: next(asked))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_result", lambda *_: (_ for _ in ()).throw(CannotWrite("full")))
        with pytest.raises(CannotWrite):
            execute("train", run, *where)
    checkpoint = store.folder(run) / "checkpoint.pt"
    assert checkpoint.exists()
    execute("train", run, *where)
    assert len(store.result(run)["provenance"]["attempts"]) == 3
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ([{"epoch": 0, "test_top1": 1.0}], "does not have the run's 2 epochs"),
        ([{"epoch": 0, "test_top1": 1.0}, {"epoch": 1, "test_top1": float("nan")}], "an epoch without an accuracy"),
        ([{"epoch": i, "test_top1": 1.0, "train_loss": float("inf")} for i in range(2)], "a number that is none"),
    ],
)
def test_unsound_contents_are_named(store, run, epochs, said):
    assert sound_result(store, run) is None
    assert sound_evaluation(store, run) is None
    result = {"run": run.to_dict(), "epochs": [{"epoch": i, "test_top1": 1.0, "test_loss": None} for i in range(2)]}
    result |= {"graphs_sha256": "", "weights_sha256": "", "provenance": made_up.PROVENANCE}
    store.write_result(run, result)
    assert sound_result(store, run) == store.result(run)
    content = {**store.result(run), "epochs": epochs}
    (store.folder(run) / "result.json").write_text(json.dumps(content))
    with pytest.raises(XNetsError, match=rf"result\.json .*{said}: delete it to train"):
        sound_result(store, run)
    store.write_evaluation(run, {"top1": "5"})
    with pytest.raises(XNetsError, match=r"evaluation\.json is not an evaluation: delete it to evaluate"):
        sound_evaluation(store, run)
