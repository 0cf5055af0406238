"""A published run is made again by one command, and what differs is said."""

import csv
import json
import re

import pytest
import torch

from experiments.execute import execute
from experiments.published import publish, read_record
from experiments.remake import note, read_notes, remake
from experiments.store import Store
from xnets.errors import XNetsError


@pytest.fixture
def record(tiny, run, store):
    """The first run of the small world, trained here and published."""
    for task in ("train", "evaluate"):
        execute(task, run, store, tiny.data_folder, torch.device("cpu"), 60)
    ((path,), _) = publish(store, [run], tiny.store.parent / "published" / "tiny", dirty=True)
    return path


def again(tiny, record, capsys):
    remake(record, tiny.data_folder, None, Store(tiny.store.with_name("remade")), "cpu")
    return capsys.readouterr().out.splitlines()[-1]


def test_the_same_weights_on_the_same_machine(tiny, record, run, capsys):
    said = json.loads(record.read_text())
    assert again(tiny, record, capsys) == (
        f"{run.label}: the same weights as those published, to the last bit; top-1 {said['evaluation']['top1']:.2f} %."
    )
    assert again(tiny, record, capsys).endswith("%."), "done before: compared again"


def test_other_weights_and_other_graphs_are_told_apart(tiny, record, run, capsys):
    said = json.loads(record.read_text())
    top1 = said["evaluation"]["top1"]
    *before, last = said["epochs"]
    off = {
        "weights_sha256": "w" * 64, "evaluation": {**said["evaluation"], "top1": 0.0},
        "epochs": [*before, {**last, "test_top1": 0.0}],
    }  # fmt: skip
    record.write_text(json.dumps(said | off))
    differ = f"over all epochs they differ by at most {top1:.2f}"
    assert f"top-1 {top1:.2f} % here, 0.00 % published; {differ}" in again(tiny, record, capsys)
    twin = {**said, **off, "run": {**said["run"], "train_seed": 9}}
    from xnets.training import Run  # its fingerprint is another

    other = Run.from_dict(twin["run"])
    record.with_name(f"{other.label}.json").write_text(json.dumps(twin | {"fingerprint": other.fingerprint}))
    assert "The 2 published runs of this configuration have a standard deviation of 0.00" in again(tiny, record, capsys)
    record.write_text(json.dumps(said | {"graphs_sha256": "g" * 64}))
    with pytest.raises(XNetsError, match="not the same graphs as those published"):
        again(tiny, record, capsys)


def test_the_outcome_is_noted_once_for_each_run(tiny, record, run, capsys, tmp_path):
    """First the same weights; then a record that says others takes the place of that line, and no other's."""
    again(tiny, record, capsys)
    remade, notes = Store(tiny.store.with_name("remade")), tmp_path / "remade.csv"
    note(read_record(record), remade, notes)
    (line,) = csv.DictReader(notes.read_text().splitlines())
    top1 = json.loads(record.read_text())["evaluation"]["top1"]
    assert (line["run"], line["same_weights"], float(line["most_apart"])) == (run.label, "True", 0.0)
    assert float(line["published_top1"]) == float(line["remade_top1"]) == top1
    notes.write_text(notes.read_text() + ",".join(["another-run", *list(line.values())[1:]]) + "\n")
    said = json.loads(record.read_text())
    said["epochs"][0]["test_top1"] += 2.5
    record.write_text(json.dumps(said | {"weights_sha256": "w" * 64}))
    note(read_record(record), remade, notes)
    other, line = csv.DictReader(notes.read_text().splitlines())
    assert (other["run"], other["same_weights"]) == ("another-run", "True")
    assert (line["run"], line["same_weights"], float(line["most_apart"])) == (run.label, "False", 2.5)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "",
        lambda text: text.replace("most_apart", "apart"),
        lambda text: text.replace(",True", ",yes"),
        lambda text: text.replace("0.0,True", "none,True"),
        lambda text: text.replace(",True", ",True,more"),
        lambda text: text.replace(",True", ""),
        lambda text: text + "\0\n",
        lambda text: b"\x93NUMPY\xff",
    ],
)
def test_notes_that_are_damaged_are_refused(tmp_path, repository, edit):
    notes = tmp_path / "remade.csv"
    whole = (repository / "published" / "remade.csv").read_text()
    edited = edit(whole)
    assert edited != whole
    notes.write_bytes(edited if isinstance(edited, bytes) else edited.encode())
    with pytest.raises(XNetsError, match=r"remade\.csv is damaged: delete it and take it back from git\.$"):
        read_notes(notes)


def test_other_data_are_refused(tiny, record):
    manifest = tiny.data_folder / "digits" / "manifest.json"
    changed = re.sub(r'"name": "\w+"', '"name": "others"', manifest.read_text())
    assert changed != manifest.read_text()
    manifest.write_text(changed)
    with pytest.raises(XNetsError, match="was trained on other data"):
        remake(record, tiny.data_folder, None, Store(tiny.store.with_name("remade")), "cpu")
