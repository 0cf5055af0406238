"""`xnets sweep` where SLURM is a few scripts, or not there at all: what it prints, and never a traceback."""

import sys
from types import SimpleNamespace

import pytest
import yaml

from experiments import plan as plan_module
from experiments import settings as settings_module
from experiments import stages
from experiments.plan import make_plan
from experiments.store import Store
from slurm import commands as actions
from slurm import submission
from tests.experiments.conftest import TINY
from tests.slurm.fakes import NAME, record
from xnets.cli import main

CLUSTER = {"gpus": 0, "cpus": 1, "memory_gb": 1.5, "time_minutes": 30, "signal_seconds": 20, "minutes_per_job": 0}
QUEUE = f"7|0|{NAME}|RUNNING|None|n1\n7|1|{NAME}|PENDING|Resources|\n9|N/A|xnets-of-another-store-0|RUNNING|None|n1\n"


@pytest.fixture
def sweep(tiny, monkeypatch, capsys):
    """Calls `xnets sweep` in the folder of the small world; its exit status and what it printed."""
    params = {"scale": "tiny", "seeds": {"table5": 1}, "executor": "slurm", "slurm": {"cluster": "mine.yaml"}}
    tiny.store.with_name("params.yaml").write_text(yaml.safe_dump({**params, "local": {"device": "cpu", "workers": 2}}))
    tiny.store.with_name("mine.yaml").write_text(yaml.safe_dump(CLUSTER))
    for module in (settings_module, actions, plan_module):
        monkeypatch.setattr(module, "read_scales", lambda: {"tiny": TINY, "twin": {**TINY, "about": "another scale"}})

    def call(*arguments, status=0):
        code = main(["sweep", *arguments])
        said = capsys.readouterr()
        assert code == status, said
        assert "Traceback" not in said.out + said.err
        assert status != 2 or "xnets: " in said.err
        return said.out + said.err

    return call


@pytest.fixture
def runs(tiny_plan):
    return tiny_plan.runs()


@pytest.fixture
def store(tiny, commands):
    """The store; no SLURM unless the test adds some."""
    return Store(tiny.store)


def finish(store, plan, run):
    """A result that holds what checks and estimates look at."""
    path = stages.graph_file(plan, run.model, 0)  # dense networks have none
    graphs = [layer["hash"] for layer in stages.read_json(path, "")["layers"]] if path.exists() else []
    about = {"seconds": 7200.0, "cuda": None}
    store.write_result(run, {"graphs_sha256": stages.combined_hash(graphs), "provenance": about})


def lines_with(said, word):
    return [line.split() for line in said.splitlines() if word in line]


def test_plan_for_a_cluster_and_for_this_machine(sweep, store, runs, tiny):
    said = sweep("plan")
    assert lines_with(said, "together")[0][1:4] == ["3", "0", "3"]
    assert "on mine: 3 jobs, 3 at a time" in said
    assert "rough, from sizes alone" in said
    store.write_result(runs[0], {"provenance": {"seconds": 7200.0, "cuda": None}})
    said = sweep("plan", "--runs")
    assert lines_with(said, "table5")[0][1:4] == ["3", "1", "2"]
    assert [line[0] for line in lines_with(said, "--digits--")] == ["done", "to", "to"]
    assert "on generic:" in sweep("plan", "--cluster", "generic")
    path = tiny.store.with_name("params.yaml")
    path.write_text(path.read_text().replace("executor: slurm", "executor: local"))
    assert " on 2 x cpu. Rows share runs." in sweep("plan")


def test_submit_dry_run_needs_slurm_only_to_ask_for_jobs(sweep, store, runs, commands):
    assert "3 jobs for 3 runs would be submitted; 0 are under way." in sweep("submit", "--dry-run")
    record(store, [[run] for run in runs])
    assert "squeue is not on this machine" in sweep("submit", "--dry-run", status=2)
    commands.add("squeue", QUEUE)
    assert "1 jobs for 1 runs would be submitted; 2 are under way." in sweep("submit", "--dry-run")
    assert len(list(store.root.glob("slurm/*"))) == 1
    assert store.failure(runs[2]) is None, "a look leaves no trace"


def test_submit_without_slurm_is_a_sentence_and_leaves_nothing(sweep, store, commands):
    assert "scontrol is not on this machine" in sweep("submit", status=2)
    commands.add("scontrol", "MaxArraySize = 1001\n")
    commands.add("squeue", "")
    assert "srun is not on this machine" in sweep("submit", status=2)
    commands.add("srun", "")
    commands.add("sbatch", complains="sbatch: error: invalid partition specified: fast", status=1)
    said = sweep("submit", status=2)
    assert "SLURM refused the jobs (sbatch: error: invalid partition specified: fast): mend the cluster's file." in said
    assert lines_with(sweep("status", status=1), "together")[0][1:7] == ["3", "0", "0", "0", "0", "3"]
    commands.add("sbatch", "Submitted batch job 7\n")
    assert "3 jobs submitted for 3 runs; 0 are under way" in sweep("submit"), "at once, not when the record has aged"


def test_submit_sends_what_nobody_has_and_what_failed(sweep, store, runs, commands, monkeypatch):
    sent = []
    monkeypatch.setattr(submission, "_sbatch", lambda executor, jobs: sent.append(jobs) or "21")
    commands.add("scontrol", "MaxArraySize = 2\n")
    commands.add("srun", "")
    commands.add("squeue", QUEUE)
    record(store, [[run] for run in runs[:2]])
    store.write_failure(runs[0], "it diverged")
    said = sweep("submit")
    assert "2 jobs submitted for 2 runs; 1 are under way, 0 are done." in said
    assert {run for jobs in sent for job in jobs for run in job.runs} == {runs[0], runs[2]}
    assert all(job.settings.store.is_absolute() and job.settings.data_folder.is_absolute() for job in sent[0])
    assert store.failure(runs[0]) is None


def test_an_evaluation_waits_for_the_job_that_trained(sweep, store, runs, commands, tiny, tiny_plan, monkeypatch):
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


def test_status_without_slurm_knows_what_is_done(sweep, store, runs, commands):
    said = sweep("status", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "0", "0", "0", "0", "3"]
    record(store, [[run] for run in runs])
    store.write_failure(runs[0], "it diverged")
    store.write_result(runs[1], {"provenance": {"seconds": 7200.0, "cuda": None}})
    said = sweep("status", "--runs", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "1", "0", "0", "1", "1"]
    assert f"{runs[0].label}  it diverged" in said
    assert said.endswith("slurm/local_cluster.sh up. What is under way is not known.\n")
    for run in runs:
        store.write_result(run, {"provenance": {"seconds": 7200.0, "cuda": None}})
    assert "not known" not in sweep("status", status=0)


def test_status_tells_running_runs_with_their_epoch(sweep, store, runs, commands):
    commands.add("squeue", QUEUE)
    commands.add("sacct", f"OUT_OF_MEMORY|0:125|{NAME}\n")
    record(store, [[run] for run in runs])
    store.folder(runs[0]).mkdir(parents=True)
    (store.folder(runs[0]) / "attempts.jsonl").write_text('{"began": "now", "slurm_job": "7_0"}\n')
    (store.folder(runs[0]) / "history.jsonl").write_text('{"epoch": 0, "test_top1": 12.34}\n{"epo')
    said = sweep("status", "--runs", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "0", "1", "1", "1", "0"]
    assert f"{runs[0].label}  job 7_0 on n1: epoch 1/2, test 12.3 %, " in said
    assert f"{runs[1].label}  job 7_1: Resources" in said
    assert f"{runs[2].label}  its job 7_2 ran out of memory" in said


def test_status_watch_looks_again_until_all_is_done(sweep, store, runs, monkeypatch):
    def sleep(seconds):
        assert seconds == 5
        for run in runs:
            store.write_result(run, {"provenance": {"seconds": 7200.0, "cuda": None}})

    monkeypatch.setattr("time.sleep", sleep)
    assert len(lines_with(sweep("status", "--watch", "5"), "together")) == 2


@pytest.mark.parametrize(
    "words", [["status", "--watch", "-1"], ["status", "--watch", "nan"], ["logs", "x", "--lines", "-1"]]
)
def test_numbers_that_make_no_sense(sweep, words, capsys):
    with pytest.raises(SystemExit) as caught:
        sweep(*words)
    assert caught.value.code == 2
    assert "xnets sweep" in capsys.readouterr().err.splitlines()[-1]


def test_logs(sweep, store, runs):
    assert "it was never submitted" in sweep("logs", runs[0].label)
    sent = record(store, [[run] for run in runs])
    assert "no job of it has started yet" in sweep("logs", runs[0].fingerprint[:12])
    sent.jobs_folder.mkdir()
    (sent.jobs_folder / "7_0_0_log.out").write_bytes(b"first\nsecond\nthird \xff\n")
    (sent.jobs_folder / "7_1_0_log.out").write_text("another run's\n")
    store.write_failure(runs[0], "it diverged")
    (store.folder(runs[0]) / "attempts.jsonl").write_text('{"began": "1970", "host": "n1", "slurm_job": null}\n')
    said = sweep("logs", runs[0].label, "--lines", "2")
    assert "failed: it diverged" in said
    assert "began 1970, host n1\n" in said
    assert "second\nthird" in said
    assert "first" not in said
    assert "another run's" not in said


@pytest.mark.parametrize("action", ["logs", "cancel", "retry"])
def test_an_unknown_run_is_a_sentence(sweep, store, commands, action):
    commands.add("squeue", "")
    assert "no run has 'ResNet-9000' in its label or fingerprint" in sweep(action, "ResNet-9000", status=2)


def test_cancel_asks_and_spares_other_stores(sweep, store, runs, commands):
    assert "squeue is not on this machine" in sweep("cancel", "--yes", status=2)
    commands.add("squeue", QUEUE)
    commands.add("scancel")
    assert "No job of these is queued or running." in sweep("cancel", "--yes")
    record(store, [[run] for run in runs], created=5.0)
    assert "there is nobody to ask: say --yes." in sweep("cancel", status=2)
    assert not commands.calls("scancel")
    assert "2 jobs (1 running) hold 2 runs." in sweep("cancel", "--yes")
    sweep("cancel", "--yes", runs[1].label)
    record(store, [[run] for run in runs], number="3", created=6.0, name="xnets-later-0")
    sweep("cancel", "--yes")  # jobs whose runs were sent again are ours all the same
    assert [sorted(call.split()) for call in commands.calls("scancel")] == [["7_0", "7_1"], ["7_1"], ["7_0", "7_1"]]


def test_cancel_takes_no_for_an_answer(sweep, store, runs, commands, monkeypatch):
    commands.add("squeue", QUEUE)
    record(store, [[run] for run in runs])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert "nothing was cancelled" in sweep("cancel", status=2)


def test_retry_sends_failed_runs_alone(sweep, store, runs, monkeypatch):
    assert "No run of these has failed." in sweep("retry")
    sent = []
    came = submission.Submitted([], [], 0, None)
    monkeypatch.setattr(actions, "submit", lambda task, runs, *rest: sent.append((task, runs)) or came)
    store.write_failure(runs[1], "it diverged")
    store.write_failure(runs[2], "it diverged")
    assert "No run of these has failed." in sweep("retry", runs[0].label)
    sweep("retry", runs[1].label)
    sweep("retry")
    assert sent == [("train", [runs[1]]), ("train", runs[1:])]


def test_collect_says_what_is_missing_damaged_or_of_other_graphs(sweep, store, runs, tiny_plan, monkeypatch):
    stages.sample(tiny_plan)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("nothing goes on before all is there"))
    said = sweep("collect", status=1)
    assert "0 of 3 results are in the store and sound." in said
    assert "3 are missing" in said
    finish(store, tiny_plan, runs[0])
    store.write_result(runs[1], {"graphs_sha256": "0" * 64, "provenance": {}})
    store.folder(runs[2]).mkdir(parents=True)
    (store.folder(runs[2]) / "result.json").write_text('{"finger')
    said = sweep("collect", status=1)
    assert "1 of 3 results are in the store and sound." in said
    assert f"{runs[1].label} was not trained on the graphs of" in said
    assert f"{runs[2].fingerprint}/result.json is damaged: delete it to train this run again." in said
    store.write_result(runs[2], {})
    assert f"{runs[2].label} was not trained on the graphs of" in sweep("collect", "--check-only", status=1)


def test_collect_goes_on_when_all_is_there(sweep, store, runs, tiny_plan, monkeypatch):
    stages.sample(tiny_plan)
    for run in runs:
        finish(store, tiny_plan, run)
    called = []
    monkeypatch.setattr("subprocess.run", lambda words, check: called.append(words) or SimpleNamespace(returncode=3))
    assert "3 of 3 results are in the store and sound." in sweep("collect", "--check-only")
    assert not called
    sweep("collect", status=3)
    assert called == [[sys.executable, "-m", "dvc", "repro"]], "whatever PATH is"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "--scale", "huge"], "scale must be one of tiny, twin, not 'huge'"),
        (["status", "--cluster", "no/such.yaml"], "There is no cluster 'no/such.yaml'"),
        (["submit", "--cluster", "params.yaml"], "unknown key 'scale'"),
    ],
)
def test_mistakes_are_sentences(sweep, words, sentence):
    assert sentence in sweep(*words, status=2)


def test_another_scale(sweep):
    assert "scale twin: another scale" in sweep("plan", "--scale", "twin")


def test_data_that_are_not_prepared(sweep, store, tiny):
    (tiny.data_folder / "digits" / "manifest.json").unlink()
    assert "3" in lines_with(sweep("plan"), "together")[0]
    assert "holds no prepared data" in sweep("submit", status=2)


@pytest.mark.parametrize("text", ['{"task": "tr', "[]"])
def test_a_damaged_record_is_named(sweep, store, runs, text):
    path = record(store, [runs]).folder / "sweep.json"
    path.write_text(text)
    assert "sweep.json is damaged: delete it to forget this submission." in sweep("status", status=2)
