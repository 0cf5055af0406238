"""What SLURM's commands say, from recorded output of theirs, and what is said when they do not."""

import os

import pytest

from slurm import queue
from slurm.queue import NoAnswer, live_jobs, max_array_size, why_ended

NAME = "xnets-20260101-000000-abcd-0"
SQUEUE = f"""\
12|0|{NAME}|RUNNING|None|n1
12|7|{NAME}|PENDING|JobArrayTaskLimit|
15|N/A|xnets-20260102-000000-abcd-1|COMPLETING|None|n[1-2]
16|N/A|notebook|RUNNING|None|n3
17|N/A|my|xnets-odd|RUNNING|None|n3
garbage
"""
SCONTROL = f"""\
JobId=12 ArrayJobId=12 ArrayTaskId=0 JobName={NAME}
   UserId=me(1000) GroupId=me(1000) MCS_label=N/A
   JobState=%s Reason=%s Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=%s
   RunTime=00:00:03 TimeLimit=00:30:00 TimeMin=N/A
"""
NO_ACCOUNTING = "Slurm accounting storage is disabled"


def test_live_jobs_of_arrays_and_single_ones(commands):
    commands.add("squeue", SQUEUE)
    jobs = live_jobs()
    assert {key: (job.id, job.running) for key, job in jobs.items()} == {
        (NAME, 0): ("12_0", True), (NAME, 7): ("12_7", False), ("xnets-20260102-000000-abcd-1", 0): ("15", True)
    }  # fmt: skip
    assert jobs[NAME, 7].why == "JobArrayTaskLimit"
    assert jobs["xnets-20260102-000000-abcd-1", 0].place == "n[1-2]"
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


ENDS = [
    ("CANCELLED by 0", "0:0", "was cancelled"),
    ("CANCELLED", "0:15", "was cancelled"),
    ("OUT_OF_MEMORY", "0:125", "ran out of memory: raise memory_gb"),
    ("FAILED", "0:9", "was killed (SIGKILL), most likely out of memory: raise memory_gb"),
    ("FAILED", "137:0", "was killed (SIGKILL), most likely out of memory: raise memory_gb"),
    ("TIMEOUT", "0:0", "ran out of time before its checkpoint was written: raise signal_seconds"),
    ("NODE_FAIL", "0:0", "the node of its job 12_0 failed"),
    ("FAILED", "3:0", "ended as failed with exit status 3:0"),
    ("COMPLETED", "0:0", "its job 12_0 ended as completed"),
    ("RUNNING", "0:0", "is gone and SLURM no longer knows why"),  # accounting that lags
]


@pytest.mark.parametrize(("state", "code", "said"), ENDS)
def test_why_a_job_ended_from_accounting(commands, state, code, said):
    commands.add("sacct", f"{state}|{code}|{NAME}\n")
    why = why_ended("12_0", NAME)
    assert said in why
    assert "12_0" in why
    assert commands.calls("sacct")[0].endswith("-j 12_0")


@pytest.mark.parametrize(("state", "code", "said"), [end for end in ENDS if " " not in end[0]])
@pytest.mark.parametrize("accounting", ["off", "empty", "none"])
def test_why_a_job_ended_from_the_controller(commands, accounting, state, code, said):
    if accounting == "off":
        commands.add("sacct", complains=NO_ACCOUNTING, status=1)
    elif accounting == "empty":
        commands.add("sacct", "")
    commands.add("scontrol", SCONTROL % (state, "JobLaunchFailure", code))
    assert said in why_ended("12_0", NAME)


def test_nobody_knows_why(commands):
    unknown = "its job 12_0 is gone and SLURM no longer knows why"
    assert why_ended("12_0", NAME) == unknown
    commands.add("sacct", complains=NO_ACCOUNTING, status=1)
    commands.add("scontrol", complains="slurm_load_jobs error: Invalid job id specified", status=1)
    assert why_ended("12_0", NAME) == unknown


def test_another_job_with_that_number_is_not_taken_for_it(commands):
    commands.add("sacct", "TIMEOUT|0:0|xnets-other\n")
    commands.add("scontrol", SCONTROL.replace(NAME, "xnets-other") % ("NODE_FAIL", "None", "0:0"))
    assert why_ended("12_0", NAME) == "its job 12_0 is gone and SLURM no longer knows why"


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
