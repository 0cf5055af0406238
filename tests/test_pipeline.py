"""`dvc repro` itself, on a copy of the repository and nine small runs: what it does, and what it survives."""

import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.clone import Clone, clone_of, copy_of_repository
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

TINY = """
tiny:
  about: two epochs of digits, for tests
  items: [table5]
  datasets: {imagenet: digits}
  networks: {mobilenet: {narrow: 2, drop_strides: 3}}
  protocols: {imagenet-mobilenet: {epochs: 2, batch_size: 100, max_lr: 0.05, augmentation: crop-1}}
"""


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.fixture(scope="module")
def small(repository, tmp_path_factory) -> Path:
    """The repository as it is now, its params asking for nine small runs."""
    local = {"device": "cpu", "workers": 2, "checkpoint_minutes": 0}
    folder = tmp_path_factory.mktemp("small")
    return copy_of_repository(repository, folder, TINY, scale="tiny", seeds={"table5": 1}, local=local)


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A clone in which `dvc repro` has run to its end."""
    clone = clone_of(small, tmp_path_factory.mktemp("finished") / "clone")
    clone.output = clone.repro()
    return clone


def test_everything_is_there_and_up_to_date(finished):
    made = finished.results()
    for number in range(1, 6):
        assert {f"results/tiny/tables/table{number}.{kind}" for kind in ("csv", "md", "tex")} <= made.keys()
    for number in range(1, 7):
        assert {f"results/tiny/figures/figure{number}.{kind}" for kind in ("pdf", "png", "csv")} <= made.keys()
    for name in ("sensitivity", "mixing", "constructions", "gaps"):
        assert {f"results/tiny/theory/{name}.{kind}" for kind in ("pdf", "png", "csv")} <= made.keys()
    assert len(list((finished.folder / "results/tiny/runs").iterdir())) == 9
    assert "up to date" in finished.run("dvc", "status")
    assert stages_run(finished.repro()) == []


def test_mlflow_has_parents_and_children(finished):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("xnets-tiny")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_name == "Table 5"
    results = {path.stem: json.loads(path.read_text()) for path in (finished.folder / "results/tiny/runs").iterdir()}
    assert {run.info.run_name for run in children} == set(results)
    for run in children:
        result = results[run.info.run_name]
        assert run.data.tags["xnets.fingerprint"] == result["fingerprint"]
        assert run.data.metrics["final_top1"] == result["epochs"][-1]["test_top1"]
        curve = client.get_metric_history(run.info.run_id, "test_top1")
        assert [point.value for point in curve] == [record["test_top1"] for record in result["epochs"]]
    finished.repro("--force", "--single-item", "track")
    assert len(client.search_runs([experiment.experiment_id])) == len(runs), "mirroring twice adds nothing"


def test_a_colour_redraws_one_figure_and_trains_nothing(finished):
    path = finished.folder / "paper_figures" / "figure3.py"
    before, text = finished.results(), path.read_text()
    path.write_text(text + "\n# another colour\n")
    assert stages_run(finished.repro()) == ["figure@3"]
    path.write_text(text)
    assert stages_run(finished.repro()) == [], "the old drawing comes back from the cache"
    assert finished.results() == before


def test_one_more_seed_trains_one_run_and_one_less_comes_from_the_cache(finished):
    before = finished.results()
    finished.params(seeds={"table5": {"X-MobileNet-0.5-4": 2}})
    output = finished.repro()
    assert "train: 10 runs, 9 were done before" in output
    finished.params(seeds={"table5": 1})
    output = finished.repro()
    assert "train" not in stages_run(output)
    assert finished.results() == before


def test_an_edited_result_is_restored(finished):
    before = finished.results()
    victim = next((finished.folder / "results/tiny/runs").iterdir())
    victim.chmod(0o644)
    victim.write_text("{}")
    finished.repro()
    assert finished.results() == before


def test_a_truncated_result_in_the_store_is_named(finished):
    victim = next((finished.folder / "store").glob("*/result.json"))
    text = victim.read_text()
    victim.write_text(text[: len(text) // 2])
    output = finished.run(sys.executable, "-m", "experiments", "train", status=2)
    assert f"{victim.relative_to(finished.folder)} is damaged" in output
    assert "Traceback" not in output
    victim.write_text(text)
    finished.run(sys.executable, "-m", "experiments", "train")


def test_two_at_once(finished):
    """The second is refused in a sentence; the first goes on to its end."""
    finished.params(seeds={"table5": {"G-MobileNet-0.5-4": 3}})
    first = finished.start("dvc", "repro", "train")
    wait_for(lambda: any(is_training(finished)), 120, first)
    os.killpg(first.pid, signal.SIGSTOP)  # it holds what it holds for as long as this test looks
    output = finished.run(sys.executable, "-m", "experiments", "train", status=2)
    assert "is already training into" in output
    second = finished.start("dvc", "repro", "train")
    text = second.communicate(timeout=120)[0]
    assert second.returncode != 0
    assert "Traceback" not in text
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait(timeout=300) == 0, first.stdout.read()
    finished.params(seeds={"table5": 1})
    finished.repro()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is being imported")
@pytest.mark.parametrize("loaded", ["", "_multiarray_umath"])
def test_a_stage_ends_if_dvc_is_killed_while_it_starts(finished, tmp_path, loaded):
    """Here a shell stands for `dvc`: it is killed at once, or when the stage has loaded a first library."""
    clone = clone_of(finished.folder, tmp_path / "clone")
    shutil.rmtree(clone.folder / "store", ignore_errors=True)  # there is much to train
    clone.environment["DVC_ROOT"] = str(clone.folder)
    script = f"{sys.executable} -m experiments train & echo $!; wait"
    shell = clone.start("/bin/sh", "-c", script)
    stage = Path("/proc") / shell.stdout.readline().strip()
    wait_for(lambda: loaded in (stage / "maps").read_text(), 60, shell, every=0.002)
    shell.kill()
    output = shell.communicate(timeout=120)[0]  # returns once the stage has closed it too
    assert not list((clone.folder / "store").glob("*/")), output


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_stage_ends_if_dvc_is_killed_while_it_trains(finished, tmp_path, shell):
    """Whatever shell `dvc` has started it by; without SHELL it is /bin/sh."""
    clone = clone_of(finished.folder, tmp_path / "clone")
    shutil.rmtree(clone.folder / "store")
    clone.environment["SHELL"] = shutil.which(shell) or pytest.skip(f"there is no {shell}")
    process = clone.start("dvc", "repro", "--force", "--single-item", "train")
    wait_for(lambda: any(is_training(clone)), 120, process)
    process.kill()
    output = process.communicate(timeout=300)[0]  # returns once whoever was left has closed it too
    assert any(is_training(clone)), f"all was trained to its end: {output}"


def is_training(clone: Clone):
    done = {path.parent for path in (clone.folder / "store").glob("*/result.json")}
    return (path for path in (clone.folder / "store").glob("*/") if path not in done)


def forget_torn_lock(clone):
    """A kill while DVC writes its own list of locks leaves it empty; DVC then says itself that it is corrupted."""
    locks = clone.folder / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(locks.read_text())
    except ValueError:
        locks.unlink()
    except FileNotFoundError:
        pass


def test_kill_9_at_five_random_moments_changes_no_bit(finished, small, tmp_path):
    """Alternately the whole process group and `dvc` alone, whose children must then end by themselves."""
    clone = clone_of(small, tmp_path / "clone")
    rng = random.Random(20181)
    killed_while_training = 0
    for attempt in range(5):
        process = clone.start("dvc", "repro")
        if attempt < 3:  # let it get as far as training, then wait a random moment
            wait_for(lambda: any(is_training(clone)), 120, process)
            time.sleep(rng.uniform(0, 3))
            killed_while_training += any(is_training(clone))
        else:
            time.sleep(rng.uniform(2, 25))
        if attempt % 2:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        forget_torn_lock(clone)
    assert killed_while_training, "the kills must have hit something"
    clone.repro()
    assert clone.results() == finished.results()
    assert "up to date" in clone.run("dvc", "status")
    assert not list((clone.folder / "store").glob("*/checkpoint.pt"))
