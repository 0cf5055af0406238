"""The run store: a run is done when a valid result with its fingerprint is there, and damage is never passed over."""

import json
import subprocess
import sys

import pytest

from experiments.store import Store
from xnets.errors import XNetsError


@pytest.fixture
def run(tiny_plan):
    return tiny_plan.runs()[0]


@pytest.fixture
def store(tiny):
    return Store(tiny.store)


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
