"""Whatever befalls a sweep on a real SLURM, it ends with every result, each trained once, and the same to the bit."""

import os
import signal
import time

import pytest

from slurm import ends
from tests.clone import clone_of, copy_of_repository
from tests.slurm.clones import PARAMS, SCALE, ClusterClone, ended, write_preset
from tests.slurm.conftest import temporary_cluster, which
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copied(repository, tmp_path_factory):
    """The repository, its params asking for three runs."""
    folder = copy_of_repository(repository, tmp_path_factory.mktemp("copied") / "plain", SCALE, **PARAMS)
    clone = clone_of(folder, folder.with_name("prepared"))
    clone.repro("prepare", "sample")
    return clone.folder


@pytest.fixture(scope="module")
def wanted(copied, tmp_path_factory):
    """The result files as the executor `local` makes them."""
    clone = clone_of(copied, tmp_path_factory.mktemp("local") / "clone")
    clone.params(executor="local")
    clone.repro("evaluate")
    return clone.results()


@pytest.fixture
def sweep(copied, cluster, tmp_path):
    """A clone of it for the cluster; what it leaves there is cancelled."""
    sweep = ClusterClone(clone_of(copied, tmp_path / "a clone"), cluster)  # a name that has to be quoted
    write_preset(sweep.clone.folder)
    yield sweep
    sweep.clone.run("xnets", "sweep", "cancel", "--yes")


def assert_complete(sweep, wanted):
    assert sweep.clone.results() == wanted
    assert sweep.completions() == [1, 1, 1]


def test_undisturbed(sweep, wanted):
    output = ended(sweep.repro())
    assert "train: 3 runs, 0 were done before" in output
    assert_complete(sweep, wanted)
    assert sweep.submissions() == 1
    assert "3        3        0        0        0        0" in sweep.xnets("status")
    assert "up to date" in ended(sweep.repro())


def test_preempted(sweep, wanted):
    process = sweep.train()
    sweep.wait_for_work(process)
    sweep.cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    ended(process)
    assert_complete(sweep, wanted)
    ends = [note["how"] for notes in sweep.attempts().values() for note in notes if "ended" in note]
    assert "stopped" in ends, "somebody was told to write its checkpoint"
    assert sweep.submissions() == 1


def test_cancelled(sweep, wanted):
    process = sweep.train()
    fingerprint, note = sweep.wait_for_work(process)
    sweep.cluster.run("scancel", note["slurm_job"])
    output = ended(process, status=2)
    assert f"its job {note['slurm_job']} was cancelled" in output
    assert "1 of 3 runs failed and the others are kept" in output
    assert sorted(sweep.completions()) == [0, 1, 1]
    assert "was cancelled" in sweep.xnets("status", status=1)
    logs = sweep.xnets("logs", fingerprint[:12])
    assert "was cancelled" in logs
    assert "began" in logs
    assert "1 jobs submitted for 1 runs" in sweep.xnets("retry")
    assert "1 runs were under way" in ended(sweep.train())
    assert_complete(sweep, wanted)


def test_a_worker_is_killed(sweep, wanted):
    process = sweep.train()
    _, note = sweep.wait_for_work(process)
    os.kill(note["pid"], signal.SIGKILL)
    assert "its worker was killed (SIGKILL)" in ended(process, status=2)
    ended(sweep.train())
    assert_complete(sweep, wanted)


def test_the_controller_is_restarted(sweep, wanted):
    process = sweep.train()
    sweep.wait_for_work(process)
    sweep.cluster.script("stop-controller")
    time.sleep(4)
    sweep.cluster.script("start-controller")
    ended(process)
    assert_complete(sweep, wanted)
    assert sweep.submissions() == 1


def test_a_node_is_lost_for_a_while(sweep, wanted):
    """SLURM starts its jobs again elsewhere while the first copies go on: the run's lock keeps them apart."""
    process = sweep.train()
    _, note = sweep.wait_for_work(process)
    node = sweep.cluster.run("squeue", "-h", "-j", note["slurm_job"], "-o", "%N").strip()
    sweep.cluster.script("stop-node", node)
    time.sleep(30)
    sweep.cluster.script("start-node", node)
    process.wait(timeout=240)
    ended(sweep.train())  # SLURM may have failed a job that came back to the node too early
    assert_complete(sweep, wanted)


def test_the_waiting_command_is_killed_and_the_code_is_edited(sweep, wanted):
    process = sweep.repro()
    sweep.wait_for_work(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code = sweep.clone.folder / "xnets" / "training" / "loop.py"
    text = code.read_text()
    code.write_text("raise SystemExit('the working tree is under repair')\n")
    time.sleep(3)
    code.write_text(text)
    ended(sweep.repro())
    assert_complete(sweep, wanted)
    assert sweep.submissions() == 1, "it attached to what was under way"


def test_told_that_its_time_is_up(sweep, wanted):
    """SIGUSR2 within the first ten minutes counts as a time-out for submitit, however often it comes."""
    process = sweep.train()
    for _ in range(2):
        _, note = sweep.wait_for_work(process)
        sweep.cluster.run("scancel", "--signal=USR2", note["slurm_job"])
        time.sleep(2)
    ended(process)
    assert_complete(sweep, wanted)
    assert sweep.submissions() == 1


def test_too_little_memory(sweep, wanted):
    write_preset(sweep.clone.folder, memory_gb=0.25)
    output = ended(sweep.train(), status=2)
    assert output.count("memory_gb") >= 3
    write_preset(sweep.clone.folder)
    ended(sweep.train())
    assert_complete(sweep, wanted)


def test_diverging_runs_do_not_stop_their_job(sweep):
    scales = sweep.clone.folder / "experiments" / "scales.yaml"
    scales.write_text(
        scales.read_text().replace("max_lr: 0.02, augmentation: crop-1}", "max_lr: 1.0e+20, augmentation: crop-1}")
    )
    write_preset(sweep.clone.folder, minutes_per_job=20, runs_at_once=2, cpus=2, gpus=1, memory_gb=3)
    output = ended(sweep.train(), status=2)
    assert "3 of 3 runs failed" in output
    assert output.count("its loss was no longer a number") >= 3
    assert sweep.submissions() == 1
    logs = [path.read_text() for path in sweep.store.glob("slurm/*/jobs/*_log.out")]
    assert len(logs) == 1, "one job for the three of them"


def test_with_accounting(copied, tmp_path, monkeypatch):
    """On a cluster that has it, sacct is asked; on the others of these tests it fails, and the controller is."""
    if not (which("slurmdbd") and which("mariadbd")):
        pytest.skip("no accounting here: apt-get install slurmdbd mariadb-server")
    cluster = temporary_cluster()
    try:
        cluster.script("up", "--accounting")
        monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "slurm.conf"))
        sweep = ClusterClone(clone_of(copied, tmp_path / "clone"), cluster)
        write_preset(sweep.clone.folder)
        sweep.xnets("submit")
        wait_for(lambda: "RUNNING" in cluster.run("sacct", "-X", "-n", "-o", "State"), 60)
        sweep.xnets("cancel", "--yes")
        wait_for(lambda: cluster.run("sacct", "-X", "-n", "-o", "State").count("CANCELLED") == 3, 60)
        wait_for(lambda: not cluster.squeue(), 60)
        monkeypatch.setattr(ends, "_from_controller", lambda *_: {})
        name = next(sweep.store.glob("slurm/*/submission.json")).parent.name
        assert "was cancelled" in ends.Inquiry().why_ended("1_0", f"xnets-{name}-0")
        assert sweep.xnets("status", status=1).count("was cancelled") == 3
    finally:
        cluster.script("down")
