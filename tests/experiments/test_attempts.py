"""One process at a run, whatever happens to the others, and what is kept of every attempt."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from experiments import execute as execute_module
from experiments import local
from experiments import store as store_module
from experiments.execute import attempt
from experiments.local import STOPPED, run_in_pool, run_locally
from experiments.processes import how_it_ended, was_stopped
from experiments.provenance import slurm_job
from experiments.store import Store
from tests.experiments.conftest import with_protocol
from xnets.errors import Stopped, XNetsError

HOLD = """
import json, sys, time
from pathlib import Path
from experiments.store import Store
from xnets.training import Run
with Store(Path(sys.argv[1])).working_on(Run.from_dict(json.loads(sys.argv[2]))):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
    print(time.time(), flush=True)
"""


@pytest.fixture
def hold(store, run, repository):
    """Starts a process that holds the run for some seconds."""
    started = []

    def start(seconds):
        words = [sys.executable, "-c", HOLD, str(store.root), json.dumps(run.to_dict()), str(seconds)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=repository))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_waits_until_the_first_is_through(store, run, hold, tiny_plan):
    first = hold(1)
    with store.working_on(tiny_plan.runs()[1]):
        assert first.poll() is None, "another run is free"
    with store.working_on(run):
        assert float(first.stdout.readline()) <= time.time()


def test_kill_9_lets_go(store, run, hold):
    first = hold(60)
    asked = []

    def kill():
        asked.append(first.poll())
        first.kill()
        return False

    with store.working_on(run, kill):
        assert asked[0] is None, "it was held at first"


def test_who_waits_can_be_stopped(store, run, hold):
    hold(60)
    with pytest.raises(Stopped, match="another process is at it"), store.working_on(run, lambda: True):
        pass


def test_a_disk_without_locks_is_used_all_the_same(store, run, monkeypatch):
    def unsupported(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with store.working_on(run):
        pass
    monkeypatch.setattr("fcntl.flock", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"), store.working_on(run):
        pass


def test_attempts_are_noted_with_their_ends(store, run):
    store.folder(run).mkdir(parents=True)
    where = {"host": "n1", "slurm_job": "7_0"}
    with store.noted_attempt(run, where):
        pass
    for error in (Stopped, XNetsError, KeyboardInterrupt):
        with pytest.raises(error), store.noted_attempt(run, where):
            raise error
    notes = store.attempts(run)
    assert [note.get("how") for note in notes[1::2]] == ["done", "stopped", "xnetserror", "keyboardinterrupt"]
    assert all(note["pid"] == os.getpid() and note["slurm_job"] == "7_0" for note in notes[::2])


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("", []),
        ('{"epoch": 0}\n', [0]),
        ('{"epoch": 0}\n{"epoch": 1', [0]),
        ('{"epoch": 0}\n{"epo{"epoch": 1}\n{"epoch": 2}\n', [0, 2]),  # killed while it wrote, and gone on
        ('{"epoch": 0}\n\x00\x00\x00\n7\n{"epoch": 1}\n', [0, 1]),  # what a disk may leave after a power cut
    ],
)
def test_lines_that_are_not_whole_are_left_out(store, run, text, epochs):
    assert store.history(run) == []
    store.folder(run).mkdir(parents=True)
    (store.folder(run) / "history.jsonl").write_text(text)
    assert [record["epoch"] for record in store.history(run)] == epochs


def test_sigterm_to_a_worker_is_a_checkpoint_and_no_failure(tiny, tiny_plan):
    plan = with_protocol(tiny_plan, epochs=8)
    first, *others = plan.runs()
    store, struck = Store(tiny.store), []

    def on_event(kind, run, content):
        if kind == "epoch" and run == first and not struck:
            struck.append(store.attempts(first)[0]["pid"])
            os.kill(struck[0], signal.SIGTERM)

    failed = run_in_pool(("train",), plan.runs(), tiny, on_event, devices=["cpu"])
    assert failed == {first: STOPPED}
    assert store.failure(first) is None
    assert (store.folder(first) / "checkpoint.pt").exists()
    assert [note["how"] for note in store.attempts(first)[1::2]] == ["stopped"]
    assert all(store.result(run) for run in others), "another worker takes its place"
    assert {store.attempts(run)[0]["pid"] for run in others}.isdisjoint(struck)


def test_no_run_is_begun_once_it_is_stopping(tiny, tiny_plan):
    begun = []

    def on_event(kind, run, content):
        if kind == "start":
            begun.append(run)

    assert run_in_pool(("train",), tiny_plan.runs(), tiny, on_event, lambda: True) == {}
    assert begun == []
    assert run_in_pool(("train",), tiny_plan.runs(), tiny, on_event, lambda: bool(begun), ["cpu"]) == {}
    assert begun == tiny_plan.runs()[:1]
    assert Store(tiny.store).is_done(begun[0])


def test_a_worker_that_dies_before_its_task_is_a_reason(tiny, tiny_plan, monkeypatch):
    start = local._start

    def start_dead(settings, place):
        worker = start(settings, place)
        worker.process.kill()
        worker.process.join()
        return worker

    monkeypatch.setattr(local, "_start", start_dead)
    failed = run_in_pool(("train",), tiny_plan.runs()[:2], tiny, lambda *event: None, devices=["cpu"])
    assert ["killed (SIGKILL)" in reason for reason in failed.values()] == [True, True]


def test_an_idle_worker_ends_when_told_to(tiny, run):
    worker = local._start(tiny, "cpu")
    worker.pipe.send(("train", replace(run, data_digest="0" * 64).to_dict()))
    assert worker.pipe.recv()[0] == "failed"
    worker.process.terminate()
    worker.process.join(20)
    assert worker.process.exitcode == 0
    assert worker.pipe.recv() == ("stopped", None), "the answer to a task that it got too late"


def test_ends_in_words():
    assert was_stopped(-signal.SIGTERM)
    assert was_stopped(-signal.SIGUSR2)
    assert not any(map(was_stopped, (None, 0, 1, -signal.SIGKILL, signal.SIGTERM)))
    assert "SIGKILL" in how_it_ended(-9)
    assert "out of memory" in how_it_ended(-9)
    assert "memory" not in how_it_ended(-11)
    assert how_it_ended(3) == "its worker ended with exit status 3"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Stopped("later"), ("stopped", None)),
        (XNetsError("it diverged"), ("failed", "it diverged")),
        (OSError(28, "No space left on device", "/x"), ("full", "/x: No space left on device: free space, then ")),
        (ZeroDivisionError("one\ntwo"), ("failed", "ZeroDivisionError: one")),
        (RuntimeError(), ("failed", "RuntimeError: ")),
    ],
)
def test_an_attempt_ends_in_words_too(tiny, run, monkeypatch, error, said):
    def execute(*args):
        raise error

    monkeypatch.setattr(execute_module, "execute", execute)
    kind, reason = attempt("train", run, tiny, None, lambda record: None, lambda: False)
    assert kind == said[0]
    assert (reason or "").startswith(said[1] or "")
    assert reason is None or "two" not in reason


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "9"}, "9"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, "7_0"),
    ],
)
def test_the_job_of_a_process(monkeypatch, variables, job):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_job() == job


def test_one_pool_at_a_store(tiny, tiny_plan, store, monkeypatch):
    with store.lock(), monkeypatch.context() as patch:
        patch.setattr(store_module.time, "monotonic", iter([0.0, 6.0]).__next__)
        with pytest.raises(XNetsError, match="already training"):
            run_locally("train", tiny_plan.runs(), tiny, lambda *event: None)
