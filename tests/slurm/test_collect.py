"""`xnets sweep collect --check-only` names every result that is missing or not sound; it needs no cluster."""

import argparse
import json

import torch

from experiments import stages
from experiments.execute import execute
from experiments.store import Store
from slurm import commands
from slurm.preset import read_preset
from tests.experiments.conftest import tiny, tiny_plan  # noqa: F401 - fixtures


def test_a_result_with_a_missing_epoch_is_named(tiny, tiny_plan, monkeypatch, capsys):  # noqa: F811
    sweep = commands.Sweep(tiny_plan, read_preset("generic", 1))
    monkeypatch.setattr(commands.Sweep, "asked", lambda args: sweep)
    stages.sample(tiny_plan)
    first, second, _ = tiny_plan.runs()
    for run in (first, second):
        execute("train", run, Store(tiny.store), tiny.data_folder, torch.device("cpu"), 60)
    path = Store(tiny.store).folder(second) / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "epochs": content["epochs"][:1]}))
    assert commands.collect(argparse.Namespace(check_only=True)) == 1
    said = capsys.readouterr().out
    assert said.startswith("1 of 3 results are in the store and sound.")
    assert f"{path} does not have the run's 2 epochs: delete it to train this run again." in said
    assert "1 are missing" in said
