"""One run on two SLURM tasks, joined by DistributedDataParallel: the loss curve of a single process."""

from dataclasses import replace
from inspect import getsource

import pytest
import torch

from experiments.execute import execute
from experiments.settings import SlurmSettings
from experiments.store import Store
from slurm.executor import Watch
from slurm.preset import Shape, read_preset
from slurm.submission import submit
from tests import double_precision as double_module
from tests.double_precision import double_precision
from tests.slurm.clones import PRESET, write_preset
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def double():
    """Double precision in this process."""
    with double_precision():
        yield


@pytest.mark.parametrize(("shape", "stops"), [(Shape(nodes=1, tasks=2), 0), (Shape(nodes=2, tasks=1), 1)])
def test_two_tasks_train_as_one_process_does(cluster, tiny, tiny_plan, tmp_path, double, shape, stops):
    run = tiny_plan.runs()[0]
    run = replace(run, protocol=replace(run.protocol, batch_size=101, epochs=2 + 2 * stops))  # shared unevenly
    alone = Store(tmp_path / "alone")
    for task in ("train", "evaluate"):
        execute(task, run, alone, tiny.data_folder, torch.device("cpu"), 60)

    (tmp_path / "start").mkdir()
    # Python runs a sitecustomize.py at its start; a job has no tests to import
    (tmp_path / "start" / "sitecustomize.py").write_text(f"{getsource(double_module)}\n\ntrain_in_double()\n")
    file = write_preset(
        tmp_path, distributed={"digits": {"nodes": shape.nodes, "tasks": shape.tasks}},
        memory_gb=8,  # sitecustomize brings torch into all three processes of a task, 0.7 GB in each
        setup=[f"export PYTHONPATH=$PYTHONPATH:{tmp_path}/start"],
    )  # fmt: skip
    settings = replace(tiny, slurm=SlurmSettings(str(file)))
    came = submit("train", [run], settings, read_preset(str(file)), lambda run: 10.0)
    assert came.record.arrays[0].shape == shape
    there = Store(settings.store)
    if stops:  # in the middle: the first task has the job requeued, and the other waits for that
        wait_for(lambda: there.history(run), 120)
        cluster.run("scancel", "--signal=USR2", came.record.arrays[0].job_id(0))
    failed = Watch("evaluate", [run], settings, lambda *event: None).wait(PRESET["poll_seconds"])
    assert not failed, "\n".join(path.read_text() for path in came.record.jobs_folder.glob("*_log.*"))

    ends = [note["how"] for note in there.attempts(run) if "ended" in note]
    assert ends == ["stopped"] * stops + ["done"]
    assert there.result(run)["provenance"]["processes"] == 2
    assert there.result(run)["graphs_sha256"] == alone.result(run)["graphs_sha256"]
    for ours, theirs in zip(there.result(run)["epochs"], alone.result(run)["epochs"], strict=True):
        # rounding grows from step to step here, even in double precision; a step lost or repeated would make 1e-2
        near = 1e-6 if ours["epoch"] < 2 - stops else 5e-3
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=near)
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=10 * near), "its logits are single precision"
    assert there.evaluation(run)["loss"] == there.result(run)["epochs"][-1]["test_loss"]
