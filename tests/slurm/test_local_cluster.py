"""slurm/local_cluster.sh gives a real SLURM, and takes all of it away again."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.slurm.conftest import SCRIPT, temporary_cluster, which
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(
    not (which("sbatch") and which("slurmctld") and which("munged")),
    reason="no SLURM here: apt-get install slurm-wlm munge",
)
WITHOUT_ACCOUNTING = pytest.mark.skipif(
    not (which("slurmdbd") and which("mariadbd")),
    reason="no accounting here: apt-get install slurmdbd mariadb-server",
)


def command_lines(part):
    """Command lines of living processes with this in them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if part in words:
            found.append(words)
    return found


def submit(cluster, script, *options):
    """The id of a job; what it prints goes to the cluster's folder."""
    output = cluster.folder / ("out.%a" if "-a" in options else "out.%j")
    options = ("-p", "low", "--mem=50", "-o", output, *options)
    return cluster.run("sbatch", "--parsable", *options, "--wrap", script).strip()


def test_two_nodes_are_idle_and_up_twice_is_fine(cluster):
    again = cluster.script("up")
    assert again.stdout == cluster.script("env").stdout == f"export SLURM_CONF={cluster.folder}/slurm.conf\n"
    assert "is up" in again.stderr
    status = cluster.script("status").stdout
    assert all(daemon in status for daemon in ("munged", "slurmctld", "slurmd"))
    assert len(re.findall(r"^n[12] +(?:low|high)\S* +\w+ +8 .* gpu:2$", status, re.M)) == 4, status
    wait_for(lambda: set(cluster.run("sinfo", "-h", "-N", "-o", "%N %t").splitlines()) == {"n1 idle", "n2 idle"})


def test_an_array_sees_its_gpus(cluster):
    submit(
        cluster,
        "echo $SLURM_ARRAY_TASK_ID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 1",
        "-a",
        "0-3",
        "--gres=gpu:1",
    )
    outputs = [cluster.folder / f"out.{task}" for task in range(4)]
    wait_for(lambda: all(output.exists() and output.read_text() for output in outputs))
    seen = [output.read_text().split() for output in outputs]
    assert [task for task, _, _ in seen] == ["0", "1", "2", "3"]
    assert {(node, gpu) for _, node, gpu in seen} == {(node, gpu) for node in ("n1", "n2") for gpu in "01"}
    wait_for(lambda: not cluster.squeue())


def test_a_job_over_its_memory_is_killed(cluster):
    script = "python3 -c 'import time; all = b\"1\" * (300 << 20); time.sleep(30)'"
    job = submit(cluster, script)
    # without cgroups SLURM says FAILED and signal 9, not OUT_OF_MEMORY; the words are in the job's output
    wait_for(lambda: "JobState=FAILED" in (shown := cluster.run("scontrol", "show", "job", job)) and "=0:9" in shown)
    assert "exceeded memory limit" in (cluster.folder / f"out.{job}").read_text()


def test_a_running_job_outlives_the_controller(cluster):
    job = submit(cluster, "echo begun; sleep 60")
    wait_for(lambda: cluster.squeue().get(job) == "RUNNING")
    cluster.script("stop-controller")
    stopped = cluster.script("status", check=False)
    assert stopped.returncode
    assert "does not answer" in stopped.stderr
    cluster.script("start-controller")
    assert cluster.squeue()[job] == "RUNNING"
    cluster.run("scancel", job)
    wait_for(lambda: not cluster.squeue())


def test_down_leaves_nothing_and_touches_nothing_else(cluster):
    other = temporary_cluster()
    bystanders = [
        subprocess.Popen(["sleep", "300"]),
        subprocess.Popen(["tail", "-F", f"{other.folder}/log/slurmctld"], stderr=subprocess.DEVNULL),
        subprocess.Popen(["sleep", "300"], env={"SLURM_CONF": f"{other.folder}/slurm.conf", "PATH": "/bin:/usr/bin"}),
    ]
    try:
        other.script("up", "--max-array-size", 5001, "--cpus", 4)
        settings = other.run("scontrol", "show", "config")
        assert re.search(r"MaxArraySize += 5001", settings)
        # neither politeness nor an environment helps against these, and there is no controller to cancel them
        submit(other, "trap '' TERM; echo begun; env -i sleep 7531 & setsid sleep 7532 & sleep 7533", "-w", "n1")
        wait_for(lambda: len(command_lines("sleep 753")) >= 3)
        other.script("stop-node", "n1")
        other.script("kill-controller")
        bystanders[1].terminate()  # its command line has the folder in it
        bystanders[1].wait()
        other.script("down")
        assert not other.folder.exists()
        assert not command_lines(str(other.folder))
        assert not command_lines("sleep 753")
        assert "No cluster is up" in other.script("down").stderr
        assert [bystander.poll() is None for bystander in bystanders] == [True, False, True]
        assert "answer" not in cluster.script("status").stderr
    finally:
        for bystander in bystanders:
            bystander.kill()
            bystander.wait()
        other.script("down")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to do"),
        (["begin"], "no command 'begin'"),
        (["up", "--gpus"], "no option '--gpus'"),
        (["up", "down"], "one argument too many"),
        (["up", "--cpus", "many"], "whole number"),
        (["up", "--folder"], "wants a value"),
        (["stop-node", "n3"], "n1 or n2"),
        (["env", "--folder", "/tmp/no-cluster-here"], "start one with"),
        (["up", "--folder", "/tmp/" + 80 * "x"], "too long"),
        (["up", "--folder", "/tmp/a b"], "letters"),
        (["up", "--folder", "{full}"], "holds something else"),
        (["down", "--folder", "{full}"], "left alone"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments, words):
    full = Path(tempfile.mkdtemp(prefix="xs", dir="/tmp"))  # tmp_path may be too long for a folder of sockets
    (full / "letter").write_text("mine")
    done = subprocess.run(
        ["bash", str(SCRIPT), *(argument.format(full=full) for argument in arguments)], capture_output=True, text=True
    )
    assert done.returncode
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
    assert (full / "letter").read_text() == "mine"
    shutil.rmtree(full)


def test_without_accounting_there_is_no_sacct(cluster):
    with pytest.raises(AssertionError, match="accounting storage is disabled"):
        cluster.run("sacct")


@WITHOUT_ACCOUNTING
def test_with_accounting_sacct_lists_jobs():
    accounted = temporary_cluster()
    try:
        accounted.script("up", "--accounting")
        job = submit(accounted, "exit 3")
        line = wait_for(
            lambda: re.findall(r".*\|FAILED\|.*", accounted.run("sacct", "-nXP", "-o", "JobID,State,ExitCode"))
        )
        assert line == [f"{job}|FAILED|3:0"]
    finally:
        accounted.script("down")
    assert not command_lines(str(accounted.folder))
