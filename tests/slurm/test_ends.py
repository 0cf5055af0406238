"""Why a job ended, from recorded output of sacct and scontrol."""

import pytest

from slurm.ends import Inquiry

NAME = "xnets-20260101-000000-abcd-0"
SCONTROL = (
    f"JobId=31 ArrayJobId=12 ArrayTaskId=0 ArrayTaskThrottle=2 JobName={NAME} UserId=me(1000) JobState=%s Reason=%s "
    "Dependency=(null) Requeue=1 ExitCode=%s RunTime=00:00:03\n"
)
NO_ACCOUNTING = "Slurm accounting storage is disabled"


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
    ("RUNNING", "0:0", None),  # accounting that lags
]


@pytest.mark.parametrize(("state", "code", "said"), ENDS)
def test_why_a_job_ended_from_accounting(commands, state, code, said):
    commands.add("sacct", f"12_0|{state}|{code}|{NAME}\n")
    why = Inquiry().why_ended("12_0", NAME)
    assert (why is said) if said is None else (said in why and "12_0" in why)
    assert commands.calls("sacct")[0].endswith("-j 12")


@pytest.mark.parametrize(("state", "code", "said"), [end for end in ENDS if " " not in end[0]])
@pytest.mark.parametrize("accounting", ["off", "empty", "none"])
def test_why_a_job_ended_from_the_controller(commands, accounting, state, code, said):
    if accounting == "off":
        commands.add("sacct", complains=NO_ACCOUNTING, status=1)
    elif accounting == "empty":
        commands.add("sacct", "")
    commands.add("scontrol", SCONTROL % (state, "JobLaunchFailure", code))
    why = Inquiry().why_ended("12_0", NAME)
    assert (why is said) if said is None else (said in why)


def test_nobody_knows_why(commands):
    assert Inquiry().why_ended("12_0", NAME) is None
    commands.add("sacct", complains=NO_ACCOUNTING, status=1)
    commands.add("scontrol", complains="slurm_load_jobs error: Invalid job id specified", status=1)
    assert Inquiry().why_ended("12_0", NAME) is None


def test_another_job_with_that_number_is_not_taken_for_it(commands):
    commands.add("sacct", "12_0|TIMEOUT|0:0|xnets-other\n")
    commands.add("scontrol", SCONTROL.replace(NAME, "xnets-other") % ("NODE_FAIL", "None", "0:0"))
    assert Inquiry().why_ended("12_0", NAME) is None


def test_one_question_for_all_jobs_of_an_array(commands):
    """Tasks that ended each by itself, a range of them, and those that were cancelled before they began."""
    commands.add("sacct", f"12_0|FAILED|3:0|{NAME}\n12_[4-6,9%2]|CANCELLED by 0|0:0|{NAME}\n")
    rest = SCONTROL.replace("ArrayTaskId=0", "ArrayTaskId=4294967294") % ("CANCELLED", "JobArrayTaskLimit", "0:0")
    one = SCONTROL.replace("ArrayTaskId=0", "ArrayTaskId=1") % ("NODE_FAIL", "None", "0:0")
    commands.add("scontrol", one + rest)
    inquiry = Inquiry()
    why = {task: inquiry.why_ended(f"12_{task}", NAME) for task in range(11)}
    assert "exit status 3:0" in why[0]
    assert "node" in why[1]
    assert all("was cancelled" in why[task] for task in range(2, 11))
    assert len(commands.calls("sacct")) == len(commands.calls("scontrol")) == 1


def test_a_plain_job(commands):
    commands.add("sacct", f"15|TIMEOUT|0:0|{NAME}\n")
    assert "ran out of time" in Inquiry().why_ended("15", NAME)
