"""The local executor: all runs done, a bad one takes no other down, a killed worker is a reason and not an end."""

import os
import signal
from dataclasses import replace

import psutil
import pytest

from experiments import stages
from experiments.estimate import Estimate
from experiments.local import devices_here, run_locally
from experiments.plan import Plan
from experiments.sound import NEEDED, PROVENANCE
from experiments.store import Store
from tests.experiments.conftest import with_protocol
from xnets.errors import XNetsError


def record_events():
    events = []
    return events, lambda kind, run, content: events.append((kind, run, content))


def test_all_runs_are_done_with_progress(tiny, tiny_plan):
    events, on_event = record_events()
    assert run_locally("train", tiny_plan.runs(), tiny, on_event) == {}
    store = Store(tiny.store)
    for run in tiny_plan.runs():
        result = store.result(run)
        assert [kind for kind, r, _ in events if r == run] == ["start", "epoch", "epoch", "done"]
        assert len(result["epochs"]) == 2
        lines = (store.folder(run) / "history.jsonl").read_text().splitlines()
        assert len(lines) == 2
        assert result["provenance"].keys() == PROVENANCE.keys() >= set(NEEDED), (
            "what sound.py checks is what is written"
        )
    (attempt,) = result["provenance"]["attempts"]
    assert all(attempt[key] == result["provenance"][key] for key in ("commit", "dirty", "kernel", "threads"))
    assert Estimate(tiny_plan).seconds(run) == result["provenance"]["seconds"]


def test_a_diverging_run_is_reported_and_the_others_are_kept(tiny, tiny_plan):
    wild = with_protocol(Plan(tiny, "", tiny_plan.cells[:1]), max_lr=1e20).cells[0]
    plan = replace(tiny_plan, cells=(wild, *tiny_plan.cells[1:]))
    with pytest.raises(XNetsError, match=r"1 of 3 runs failed .*\n.*no longer a number"):
        stages.train(plan)
    store = Store(tiny.store)
    bad, *good = plan.runs()
    assert store.result(bad) is None
    assert "no longer a number" in store.failure(bad)
    assert all(store.result(run) for run in good)
    assert not (tiny.results / "runs").exists()


def test_a_killed_worker_takes_only_its_run_down(tiny, tiny_plan):
    plan = with_protocol(tiny_plan, epochs=8)
    killed = []

    def on_event(kind, run, content):
        if kind == "epoch" and not killed:
            children = psutil.Process().children(recursive=True)
            victim = next(c for c in children if "spawn_main" in " ".join(c.cmdline()))
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    failed = run_locally("train", plan.runs(), tiny, on_event)
    (reason,) = failed.values()
    assert "killed (SIGKILL)" in reason
    assert run_locally("train", list(failed), tiny, on_event) == {}
    assert all(Store(tiny.store).result(run) for run in plan.runs())


def test_workers_end_with_their_parent(tiny, tiny_plan, repository):
    """kill -9 of the parent: no worker goes on in the dark."""
    import subprocess
    import sys
    import time

    code = (
        "import os, sys, time; sys.path.insert(0, os.environ['XNETS_TOP'])\n"
        "from experiments.local import _start\n"
        "from experiments.settings import LocalSettings, Settings\n"
        "if __name__ == '__main__':\n"
        "    workers = [_start(Settings('tiny', {'table5': 1}), 'cpu') for _ in range(2)]\n"
        "    print(*(w.process.pid for w in workers), flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tiny.store.parent / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=repository,
        env={**os.environ, "XNETS_TOP": str(repository)},
    )  # fmt: skip
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    time.sleep(2)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=15)
    assert not alive


def test_no_gpu_where_one_is_asked_for(tiny, monkeypatch):
    monkeypatch.setattr("experiments.local._gpus", lambda: 0)
    asks = replace(tiny, local=replace(tiny.local, device="cuda"))
    with pytest.raises(XNetsError, match="finds no GPU"):
        devices_here(asks, 4)


def test_gpus_take_turns_and_cores_are_counted(tiny, monkeypatch):
    monkeypatch.setattr("experiments.local._gpus", lambda: 2)
    auto = replace(tiny, local=replace(tiny.local, device="auto", workers=0))
    assert devices_here(auto, 100) == ["cuda:0", "cuda:1"]
    assert devices_here(replace(auto, local=replace(auto.local, workers=5)), 100) == ["cuda:0", "cuda:1"] * 2 + [
        "cuda:0"
    ]
    assert devices_here(auto, 1) == ["cuda:0"]
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    cpu = replace(auto, local=replace(auto.local, device="cpu"))
    assert devices_here(cpu, 100) == ["cpu"] * 8
    assert devices_here(replace(cpu, local=replace(cpu.local, threads=3)), 100) == ["cpu"] * 2


def test_other_data_than_planned_are_refused(tiny, tiny_plan):
    runs = [replace(run, data_digest="f" * 64) for run in tiny_plan.runs()[:1]]
    (reason,) = run_locally("train", runs, tiny, lambda *event: None).values()
    assert "not those that" in reason


def test_a_disk_that_fills_ends_the_stage_at_once(tiny, tiny_plan):
    """The first run cannot be written: it is named with its file, and the others are left for the next time."""
    runs, store = tiny_plan.runs(), Store(tiny.store)
    (store.folder(runs[0]) / "model.pt").mkdir(parents=True)  # what cannot be replaced stands for a full disk
    alone = replace(tiny, local=replace(tiny.local, workers=1))
    failed = run_locally("train", runs, alone, lambda *event: None)
    assert list(failed) == runs[:1]
    assert "model.pt" in failed[runs[0]]
    assert not any(store.folder(run).exists() for run in runs[1:])
