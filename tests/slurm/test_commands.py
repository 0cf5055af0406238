"""`xnets sweep` where SLURM is a few scripts, or not there at all: what it prints, and never a traceback."""

import sys
from types import SimpleNamespace

import pytest

from experiments import stages
from tests.made_up import PROVENANCE
from tests.slurm.fakes import NAME, QUEUE, record


def finish(store, plan, run, **changes):
    """A sound result, without training."""
    path = stages.graph_file(plan, run.model, 0)  # dense networks have none
    graphs = [layer["hash"] for layer in stages.read_json(path, "")["layers"]] if path.exists() else []
    epochs = [{"epoch": i, "test_top1": 50.0} for i in range(run.protocol.epochs)]
    sums = {"graphs_sha256": stages.combined_hash(graphs), "weights_sha256": "0" * 64}
    about = {**PROVENANCE, "seconds": 7200.0}
    store.write_result(run, {"run": run.to_dict(), "epochs": epochs, **sums, "provenance": about, **changes})


def lines_with(said, word):
    return [line.split() for line in said.splitlines() if word in line]


def test_plan_for_a_cluster_and_for_this_machine(xnets_sweep, store, runs, tiny):
    said = xnets_sweep("plan")
    assert lines_with(said, "together")[0][1:4] == ["3", "0", "3"]
    assert "on mine: 3 jobs, 3 at a time" in said
    assert "rough, from sizes alone" in said
    store.write_result(runs[0], {"provenance": {"seconds": 7200.0, "cuda": None}})
    said = xnets_sweep("plan", "--runs")
    assert lines_with(said, "table5")[0][1:4] == ["3", "1", "2"]
    assert [line[0] for line in lines_with(said, "--digits--")] == ["done", "to", "to"]
    assert "on generic:" in xnets_sweep("plan", "--cluster", "generic")
    path = tiny.store.with_name("params.yaml")
    path.write_text(path.read_text().replace("executor: slurm", "executor: local"))
    assert " on 2 x cpu. Rows share runs." in xnets_sweep("plan")


def test_status_without_slurm_knows_what_is_done(xnets_sweep, store, runs, commands):
    said = xnets_sweep("status", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "0", "0", "0", "0", "3"]
    record(store, [[run] for run in runs])
    store.write_failure(runs[0], "it diverged")
    store.write_result(runs[1], {"provenance": {"seconds": 7200.0, "cuda": None}})
    said = xnets_sweep("status", "--runs", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "1", "0", "0", "1", "1"]
    assert f"{runs[0].label}  it diverged" in said
    assert said.splitlines()[0].endswith("slurm/local_cluster.sh up. What is under way is not known.")
    for run in runs:
        store.write_result(run, {"provenance": {"seconds": 7200.0, "cuda": None}})
    assert "not known" not in xnets_sweep("status", status=0)


def test_status_tells_running_runs_with_their_epoch(xnets_sweep, store, runs, commands):
    commands.add("squeue", QUEUE)
    commands.add("sacct", f"7_2|OUT_OF_MEMORY|0:125|{NAME}\n")
    record(store, [[run] for run in runs])
    store.folder(runs[0]).mkdir(parents=True)
    (store.folder(runs[0]) / "attempts.jsonl").write_text('{"began": "now", "slurm_job": "7_0"}\n')
    (store.folder(runs[0]) / "history.jsonl").write_text('{"epoch": 0, "test_top1": 12.34}\n{"epo')
    said = xnets_sweep("status", "--runs", status=1)
    assert lines_with(said, "together")[0][1:7] == ["3", "0", "1", "1", "1", "0"]
    assert f"{runs[0].label}  job 7_0 on n1: epoch 1/2, test 12.3 %, " in said
    assert f"{runs[1].label}  job 7_1: Resources" in said
    assert f"{runs[2].label}  its job 7_2 ran out of memory" in said


def test_status_watch_looks_again_until_all_is_done(xnets_sweep, store, runs, monkeypatch):
    def sleep(seconds):
        assert seconds == 5
        for run in runs:
            store.write_result(run, {"provenance": {"seconds": 7200.0, "cuda": None}})

    monkeypatch.setattr("time.sleep", sleep)
    assert len(lines_with(xnets_sweep("status", "--watch", "5"), "together")) == 2


@pytest.mark.parametrize(
    "words", [["status", "--watch", "-1"], ["status", "--watch", "nan"], ["logs", "x", "--lines", "-1"]]
)
def test_numbers_that_make_no_sense(xnets_sweep, words, capsys):
    with pytest.raises(SystemExit) as caught:
        xnets_sweep(*words)
    assert caught.value.code == 2
    assert "xnets sweep" in capsys.readouterr().err.splitlines()[-1]


def test_logs(xnets_sweep, store, runs):
    assert "it was never submitted" in xnets_sweep("logs", runs[0].label)
    sent = record(store, [[run] for run in runs])
    assert "no job of it has started yet" in xnets_sweep("logs", runs[0].fingerprint[:12])
    sent.jobs_folder.mkdir()
    (sent.jobs_folder / "7_0_0_log.out").write_bytes(b"first\nsecond\nthird \xff\n")
    (sent.jobs_folder / "7_1_0_log.out").write_text("another run's\n")
    store.write_failure(runs[0], "it diverged")
    (store.folder(runs[0]) / "attempts.jsonl").write_text('{"began": "1970", "host": "n1", "slurm_job": null}\n')
    said = xnets_sweep("logs", runs[0].label, "--lines", "2")
    assert "failed: it diverged" in said
    assert "began 1970, host n1\n" in said
    assert "second\nthird" in said
    assert "first" not in said
    assert "another run's" not in said


def test_collect_says_what_is_missing_damaged_or_of_other_graphs(xnets_sweep, store, runs, tiny_plan, monkeypatch):
    stages.sample(tiny_plan)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("nothing goes on before all is there"))
    said = xnets_sweep("collect", status=1)
    assert "0 of 3 results are in the store and sound." in said
    assert "3 are missing" in said
    finish(store, tiny_plan, runs[0])
    finish(store, tiny_plan, runs[1], graphs_sha256="0" * 64)
    store.folder(runs[2]).mkdir(parents=True)
    (store.folder(runs[2]) / "result.json").write_text('{"finger')
    said = xnets_sweep("collect", status=1)
    assert "1 of 3 results are in the store and sound." in said
    assert f"{runs[1].label} was not trained on the graphs of" in said
    assert f"{runs[2].fingerprint}/result.json is damaged: delete it to train this run again." in said
    store.write_result(runs[2], {})
    assert "result.json is not a result: delete it" in xnets_sweep("collect", "--check-only", status=1)


def test_collect_goes_on_when_all_is_there(xnets_sweep, store, runs, tiny_plan, monkeypatch):
    stages.sample(tiny_plan)
    for run in runs:
        finish(store, tiny_plan, run)
    called = []
    monkeypatch.setattr("subprocess.run", lambda words, check: called.append(words) or SimpleNamespace(returncode=3))
    assert "3 of 3 results are in the store and sound." in xnets_sweep("collect", "--check-only")
    assert not called
    xnets_sweep("collect", status=3)
    assert called == [[sys.executable, "-m", "dvc", "repro"]], "whatever PATH is"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "--scale", "huge"], "scale must be one of tiny, twin, not 'huge'"),
        (["status", "--cluster", "no/such.yaml"], "There is no cluster 'no/such.yaml'"),
        (["submit", "--cluster", "params.yaml"], "unknown key 'scale'"),
    ],
)
def test_mistakes_are_sentences(xnets_sweep, words, sentence):
    assert sentence in xnets_sweep(*words, status=2)


def test_another_scale(xnets_sweep):
    assert "scale twin: another scale" in xnets_sweep("plan", "--scale", "twin")


def test_data_that_are_not_prepared(xnets_sweep, store, tiny):
    (tiny.data_folder / "digits" / "manifest.json").unlink()
    assert "3" in lines_with(xnets_sweep("plan"), "together")[0]
    assert "holds no prepared data" in xnets_sweep("submit", status=2)


@pytest.mark.parametrize("text", ['{"task": "tr', "[]"])
def test_a_damaged_record_is_named(xnets_sweep, store, runs, text):
    path = record(store, [runs]).folder / "submission.json"
    path.write_text(text)
    assert "submission.json is damaged: delete it to forget this submission." in xnets_sweep("status", status=2)
