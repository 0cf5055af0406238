"""What `xnets sweep` submits, submits again and cancels, with scripts in place of SLURM."""

import pytest

from experiments.plan import make_plan
from experiments.store import Store
from slurm import commands as actions
from slurm import submission
from tests.slurm.fakes import NAME, QUEUE, preset, record


def test_submit_dry_run_needs_slurm_only_to_ask_for_jobs(xnets_sweep, store, runs, commands):
    assert "3 jobs for 3 runs would be submitted; 0 are under way." in xnets_sweep("submit", "--dry-run")
    record(store, [[run] for run in runs])
    assert "squeue is not on this machine" in xnets_sweep("submit", "--dry-run", status=2)
    commands.add("squeue", QUEUE)
    assert "1 jobs for 1 runs would be submitted; 2 are under way." in xnets_sweep("submit", "--dry-run")
    assert len(list(store.root.glob("slurm/*"))) == 1
    assert store.failure(runs[2]) is None, "a look leaves no trace"


def test_submit_without_slurm_is_a_sentence_and_leaves_nothing(xnets_sweep, store, commands):
    assert "scontrol is not on this machine" in xnets_sweep("submit", status=2)
    commands.add("scontrol", "MaxArraySize = 1001\n")
    commands.add("squeue", "")
    assert "srun is not on this machine" in xnets_sweep("submit", status=2)
    commands.add("srun", "")
    commands.add("sbatch", complains="sbatch: error: invalid partition specified: fast", status=1)
    said = xnets_sweep("submit", status=2)
    assert "SLURM did not take the jobs (sbatch: error: invalid partition specified: fast): mend the" in said
    assert "queued:" not in xnets_sweep("status", "--runs", status=1), "the record of it is gone"
    commands.add("sbatch", "Submitted batch job 7\n")
    assert "3 jobs submitted for 3 runs; 0 are under way" in xnets_sweep("submit"), "at once, not when it has aged"


def test_submit_sends_what_nobody_has_and_what_failed(xnets_sweep, store, runs, commands, monkeypatch):
    sent = []
    monkeypatch.setattr(submission, "_sbatch", lambda executor, jobs: sent.append(jobs) or "21")
    commands.add("scontrol", "MaxArraySize = 2\n")
    commands.add("srun", "")
    commands.add("squeue", QUEUE)
    record(store, [[run] for run in runs[:2]])
    store.write_failure(runs[0], "it diverged")
    said = xnets_sweep("submit")
    assert "2 jobs submitted for 2 runs; 1 are under way, 0 are done." in said
    assert {run for jobs in sent for job in jobs for run in job.runs} == {runs[0], runs[2]}
    assert all(job.settings.store.is_absolute() and job.settings.data_folder.is_absolute() for job in sent[0])
    assert store.failure(runs[0]) is None


def test_an_evaluation_waits_for_the_job_that_trained(xnets_sweep, store, runs, commands, tiny, tiny_plan, monkeypatch):
    monkeypatch.setattr(submission, "_sbatch", lambda executor, jobs: "21")
    commands.add("scontrol", "MaxArraySize = 1001\n")
    commands.add("srun", "")
    commands.add("squeue", QUEUE)
    record(store, [runs[:1], runs[1:2]])
    for run in runs:
        store.write_result(run, {})
    preset = actions.read_preset("mine.yaml")
    came = submission.submit("evaluate", runs, make_plan(tiny).settings, preset, lambda run: 1.0)
    assert (came.attached, came.sent) == (runs[:2], runs[2:])


@pytest.mark.parametrize("action", ["logs", "cancel", "retry"])
def test_an_unknown_run_is_a_sentence(xnets_sweep, store, commands, action):
    commands.add("squeue", "")
    assert "no run has 'ResNet-9000' in its label or fingerprint" in xnets_sweep(action, "ResNet-9000", status=2)


def test_cancel_asks_and_spares_other_stores(xnets_sweep, store, runs, commands):
    assert "squeue is not on this machine" in xnets_sweep("cancel", "--yes", status=2)
    commands.add("squeue", QUEUE)
    commands.add("scancel")
    assert "No job of these is queued or running." in xnets_sweep("cancel", "--yes")
    record(store, [[run] for run in runs], created=5.0)
    assert "there is nobody to ask: say --yes." in xnets_sweep("cancel", status=2)
    assert not commands.calls("scancel")
    assert "2 jobs (1 running) hold 2 runs." in xnets_sweep("cancel", "--yes")
    xnets_sweep("cancel", "--yes", runs[1].label)
    record(store, [[run] for run in runs], number="3", created=6.0, name="xnets-later-0")
    xnets_sweep("cancel", "--yes")  # jobs whose runs were sent again are ours all the same
    assert [sorted(call.split()) for call in commands.calls("scancel")] == [["7_0", "7_1"], ["7_1"], ["7_0", "7_1"]]


def test_cancel_takes_no_for_an_answer(xnets_sweep, store, runs, commands, monkeypatch):
    commands.add("squeue", QUEUE)
    record(store, [[run] for run in runs])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert "nothing was cancelled" in xnets_sweep("cancel", status=2)


def test_retry_sends_failed_runs_alone(xnets_sweep, store, runs, monkeypatch):
    assert "No run of these has failed." in xnets_sweep("retry")
    sent = []
    came = submission.Submitted([], [], 0, None)
    monkeypatch.setattr(actions, "submit", lambda task, runs, *rest: sent.append((task, runs)) or came)
    store.write_failure(runs[1], "it diverged")
    store.write_failure(runs[2], "it diverged")
    assert "No run of these has failed." in xnets_sweep("retry", runs[0].label)
    xnets_sweep("retry", runs[1].label)
    xnets_sweep("retry")
    assert sent == [("train", [runs[1]]), ("train", runs[1:])]


def test_jobs_of_an_interrupted_submission_are_ended_and_sent_again(tiny, runs, commands, monkeypatch):
    """kill -9 between sbatch's answer and submitit's files: the jobs would wait for what they are to do, and fail."""
    store = Store(tiny.store)
    record(store, [[run] for run in runs], number=None)
    commands.add("squeue", "".join(f"7|{i}|{NAME}|PENDING|Priority|\n" for i in range(len(runs))))
    for name in ("scancel", "srun"):
        commands.add(name)
    commands.add("scontrol", "MaxArraySize = 1001\n")
    sent = []
    monkeypatch.setattr(submission, "_sbatch", lambda executor, jobs: sent.extend(jobs) or "8")
    came = submission.submit("train", runs, tiny, preset(minutes_per_job=0), lambda run: 1.0)
    assert commands.calls("scancel") == ["7_0 7_1 7_2"]
    assert came.sent == runs
    assert len(sent) == 3
