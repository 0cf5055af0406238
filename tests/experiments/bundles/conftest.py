"""Two stores: one with three finished runs that nobody trained, and an empty one."""

import json
import tarfile
from functools import partialmethod

import pytest
import torch

from experiments.store import Store
from tests import made_up
from xnets.models import ModelSpec
from xnets.training import Protocol, Run

PROTOCOL = Protocol(2, 64, 0.1, "cifar", "none", 1e-4, 300)
RUNS = [Run(ModelSpec("X-VGG16-1"), "digits", "0" * 64, PROTOCOL, seed, seed) for seed in range(4)]
FP = RUNS[0].fingerprint


def finish(store, run, top1=90.0, weights="a", evaluated=True, host="there"):
    """With all the files of a run that was trained, or all but the evaluation."""
    made_up.finish(store, run, top1, weights, 500, host=host, commit=None)
    epochs = store.result(run)["epochs"]
    (store.folder(run) / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))
    (store.folder(run) / "model.pt").write_bytes(bytes(range(256)) * 40)
    if not evaluated:
        (store.folder(run) / "evaluation.json").unlink()


def begin(store, run, epochs, step, padding=b""):
    """A checkpoint so far, and its notes."""
    history = [{"epoch": epoch} for epoch in range(epochs)]
    store.folder(run).mkdir(parents=True, exist_ok=True)
    noise = torch.frombuffer(bytearray(padding or b"0"), dtype=torch.uint8)
    state = {"fingerprint": run.fingerprint, "history": history, "step": step, "model": noise}
    torch.save(state, store.folder(run) / "checkpoint.pt")
    (store.folder(run) / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))


def contents(store):
    """Every file of the store but locks."""
    paths = [path for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in paths}


def files_of(store, run):
    return {name: data for name, data in contents(store).items() if name.startswith(run.fingerprint)}


def read_tar(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Who finds the store in use says so at once."""
    monkeypatch.setattr(Store, "lock", partialmethod(Store.lock, 0.1))


@pytest.fixture
def there(tmp_path):
    """A store with three finished runs."""
    store = Store(tmp_path / "there")
    for run in RUNS[:3]:
        finish(store, run)
    return store


@pytest.fixture
def here(tmp_path):
    """An empty store."""
    return Store(tmp_path / "here")
