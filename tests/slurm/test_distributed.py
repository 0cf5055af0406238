"""One run on two SLURM tasks, joined by DistributedDataParallel: the loss curve of a single process."""

from dataclasses import replace

import pytest

from experiments.execute import execute
from experiments.settings import SlurmSettings
from experiments.store import Store
from slurm.executor import Watch
from slurm.preset import Shape, read_preset
from slurm.submission import submit
from tests.experiments.conftest import tiny, tiny_plan  # noqa: F401 - fixtures
from tests.slurm.sweeps import PRESET, write_preset

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", [Shape(nodes=1, tasks=2), Shape(nodes=2, tasks=1)])
def test_two_tasks_train_as_one_process_does(cluster, tiny, tiny_plan, tmp_path, shape):  # noqa: F811
    """At a rate so low that rounding is not amplified from step to step; batches of 101 are shared unevenly."""
    import torch

    run = tiny_plan.runs()[0]
    run = replace(run, protocol=replace(run.protocol, batch_size=101, max_lr=1e-3, nesterov=True))
    alone = Store(tmp_path / "alone")
    execute("train", run, alone, tiny.data_folder, torch.device("cpu"), 60)
    execute("evaluate", run, alone, tiny.data_folder, torch.device("cpu"), 60)

    file = write_preset(tmp_path, distributed={"digits": {"nodes": shape.nodes, "tasks": shape.tasks}})
    settings = replace(tiny, slurm=SlurmSettings(str(file)))
    came = submit("train", [run], settings, read_preset(str(file)), lambda run: 10.0)
    assert came.sweep.arrays[0].shape == shape
    failed = Watch("evaluate", [run], settings, lambda *event: None).wait(PRESET["poll_seconds"])
    assert not failed, "\n".join(path.read_text() for path in came.sweep.jobs_folder.glob("*_log.*"))

    there = Store(settings.store)
    assert there.result(run)["provenance"]["processes"] == 2
    assert there.result(run)["graphs_sha256"] == alone.result(run)["graphs_sha256"]
    for ours, theirs in zip(there.result(run)["epochs"], alone.result(run)["epochs"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-4)
    assert there.evaluation(run)["loss"] == pytest.approx(alone.evaluation(run)["loss"], rel=1e-4)
