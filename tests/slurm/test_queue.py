"""What SLURM's commands say, from recorded output of theirs, and what is said when they do not answer."""

import os

import pytest

from slurm import queue
from slurm.queue import NoAnswer, live_jobs, max_array_size

NAME = "xnets-20260101-000000-abcd-0"
SQUEUE = f"""\
12|0|{NAME}|RUNNING|None|n1
12|7|{NAME}|PENDING|JobArrayTaskLimit|
15|N/A|xnets-20260102-000000-abcd-1|COMPLETING|None|n[1-2]
16|N/A|notebook|RUNNING|None|n3
17|N/A|my|xnets-odd|RUNNING|None|n3
garbage
"""


def test_live_jobs_of_arrays_and_single_ones(commands):
    commands.add("squeue", SQUEUE)
    jobs = live_jobs()
    assert {key: (job.id, job.running) for key, job in jobs.items()} == {
        (NAME, 0): ("12_0", True), (NAME, 7): ("12_7", False), ("xnets-20260102-000000-abcd-1", 0): ("15", True)
    }  # fmt: skip
    assert jobs[NAME, 7].why == "JobArrayTaskLimit"
    assert jobs["xnets-20260102-000000-abcd-1", 0].nodes == "n[1-2]"
    (call,) = commands.calls("squeue")
    assert "--array" in call
    assert f"--user={os.getuid()}" in call


def test_no_job_at_all(commands):
    commands.add("squeue", "")
    assert live_jobs() == {}


@pytest.mark.parametrize(
    ("prints", "size"), [("MaxArraySize            = 1001\n", 1001), ("MaxArraySize = 0\n", 1), ("Nothing\n", 1000)]
)
def test_the_longest_array(commands, prints, size):
    commands.add("scontrol", f"Configuration data as of 2026\n{prints}MaxJobCount = 10\n")
    assert max_array_size() == size


def test_a_command_that_is_not_there(commands):
    with pytest.raises(NoAnswer, match=r"SLURM's squeue is not on this machine: .*local_cluster\.sh up"):
        live_jobs()


def test_a_command_that_fails(commands):
    commands.add("squeue", complains="first\nslurm_load_jobs error: Unable to contact slurm controller", status=1)
    with pytest.raises(NoAnswer) as caught:
        live_jobs()
    assert str(caught.value) == ("SLURM's squeue failed: slurm_load_jobs error: Unable to contact slurm controller.")
    commands.add("squeue", status=3)
    with pytest.raises(NoAnswer, match="squeue failed: exit status 3"):
        live_jobs()


def test_a_command_that_hangs(commands, monkeypatch):
    commands.add("squeue", body="exec /bin/sleep 30")
    monkeypatch.setattr(queue, "TIMEOUT", 0.2)
    with pytest.raises(NoAnswer, match=r"squeue did not answer within 0\.2 seconds"):
        live_jobs()


def test_many_jobs_are_cancelled_in_bites(commands):
    commands.add("scancel")
    queue.cancel([f"12_{i}" for i in range(1001)])
    assert [len(call.split()) for call in commands.calls("scancel")] == [500, 500, 1]
