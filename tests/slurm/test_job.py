"""What a job does on its node, without SLURM: its runs, its checkpoints, and what it says when it is in vain."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import cloudpickle
import pytest

from experiments.local import run_locally
from experiments.plan import Plan
from experiments.store import Store
from slurm import job as job_module
from slurm.job import STARTS_IN_VAIN, PackJob
from slurm.preset import Shape
from tests.experiments.conftest import with_protocol
from tests.slurm.fakes import preset


@pytest.fixture(autouse=True)
def own_handlers():
    """A job sets signal handlers: the tests' own come back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def long_plan(tiny_plan):
    """Two runs of some seconds each."""
    return with_protocol(Plan(tiny_plan.settings, "", tiny_plan.cells[:2]), epochs=8)


def pack_job(settings, runs, task="train", shape=None, **changes):
    return PackJob(task, tuple(runs), settings, preset(**changes), shape or Shape())


def how(store, run):
    return [note["how"] for note in store.attempts(run) if "ended" in note]


def when(condition, act):
    """Call `act` in a thread as soon as `condition` holds."""

    def wait():
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def bits(store, runs):
    results = {run: store.result(run) for run in runs}
    return {run: (said["weights_sha256"], said["epochs"]) for run, said in results.items()}


def test_it_trains_and_evaluates_and_does_not_repeat_a_failure(tiny, tiny_plan, capsys):
    wild = with_protocol(Plan(tiny, "", tiny_plan.cells[:1]), max_lr=1e20).runs()
    good, broken = tiny_plan.runs()[1:]
    store = Store(tiny.store)
    store.write_failure(broken, "it diverged before")
    pack_job(tiny, [*wild, good, broken])()
    assert store.evaluation(good)["n"] == 500
    assert how(store, good) == ["done"]
    assert "no longer a number" in store.failure(wild[0])
    assert store.failure(broken) == "it diverged before"
    assert store.attempts(broken) == []
    said = capsys.readouterr().out
    assert f"done {good.label}" in said
    assert "epoch 2, test" in said

    before = (store.folder(good) / "result.json").stat().st_mtime_ns
    pack_job(tiny, [*wild, good, broken])()  # it was requeued, although there was nothing left
    assert how(store, good) == ["done"]
    assert len(store.attempts(wild[0])) == 2
    assert (store.folder(good) / "result.json").stat().st_mtime_ns == before


def test_its_time_is_up_and_the_next_start_comes_to_the_same_bits(tiny, long_plan, tmp_path):
    """As submitit does it: checkpoint() in the handler of SIGUSR2, then the process ends and the pickle goes on."""
    runs = long_plan.runs()
    wanted_in = replace(tiny, store=tmp_path / "undisturbed")
    assert run_locally("train", runs, wanted_in, lambda *event: None) == {}
    store, job = Store(tiny.store), pack_job(tiny, runs, runs_at_once=2)
    again = []

    def handler(*_):
        again.append(job.checkpoint())
        raise SystemExit(1)

    signal.signal(signal.SIGUSR2, handler)
    thread = when(lambda: any(map(store.history, runs)), lambda: os.kill(os.getpid(), signal.SIGUSR2))
    with pytest.raises(SystemExit):
        job()
    thread.join()
    stopped = [run for run in runs if store.attempts(run)]
    assert stopped
    for run in stopped:
        assert how(store, run) == ["stopped"]
        assert (store.folder(run) / "checkpoint.pt").exists()
    assert [store.failure(run) for run in runs] == [None, None]
    again[0].function()
    assert bits(store, runs) == bits(Store(wanted_in.store), runs)
    assert [how(store, run) for run in stopped] == [["stopped", "done"]] * len(stopped)
    assert all(store.evaluation(run) for run in runs)


def test_a_worker_without_work_does_not_use_up_the_warning(tiny, long_plan, tiny_plan):
    """The time until the end is for checkpoints and being requeued, not for waiting for somebody who does nothing."""
    short, long = tiny_plan.runs()[2], long_plan.runs()[0]
    store, job = Store(tiny.store), pack_job(tiny, [long, short], runs_at_once=2)
    took = []

    def handler(*_):
        began = time.monotonic()
        job.checkpoint()
        took.append(time.monotonic() - began)
        raise SystemExit(1)

    signal.signal(signal.SIGUSR2, handler)
    thread = when(lambda: store.is_done(short), lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGUSR2)))
    with pytest.raises(SystemExit):
        job()
    thread.join()
    assert how(store, long) == ["stopped"]
    assert took[0] < 12, "without it: 16 s, which is PATIENCE"


@pytest.fixture
def waits(monkeypatch):
    """Waiting for SLURM to end the job, noted and cut short."""
    found = []

    def wait():
        found.append(time.monotonic())
        raise SystemExit(1)

    monkeypatch.setattr(job_module, "_wait_for_the_end", wait)
    return found


def test_sigterm_stops_it_and_it_waits_for_what_slurm_decides(tiny, long_plan, waits):
    runs = long_plan.runs()
    store = Store(tiny.store)
    thread = when(lambda: store.history(runs[0]), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        pack_job(tiny, runs)()
    thread.join()
    assert len(waits) == 1
    assert how(store, runs[0]) == ["stopped"]
    assert (store.folder(runs[0]) / "checkpoint.pt").exists()
    assert store.attempts(runs[1]) == [], "no further run is begun"
    assert [store.failure(run) for run in runs] == [None, None]


def test_sigterm_before_its_workers_start_begins_nothing(tiny, long_plan, waits, monkeypatch):
    settings_here = PackJob._settings_here

    def slowly(self):  # data are being copied to the node
        os.kill(os.getpid(), signal.SIGTERM)
        return settings_here(self)

    monkeypatch.setattr(PackJob, "_settings_here", slowly)
    with pytest.raises(SystemExit):
        pack_job(tiny, long_plan.runs())()
    assert len(waits) == 1
    assert Store(tiny.store).attempts(long_plan.runs()[0]) == []


def test_it_gives_up_after_starts_in_vain(tiny, tiny_plan, monkeypatch):
    done, failed, slow = tiny_plan.runs()
    store = Store(tiny.store)
    store.write_result(done, {})
    os.utime(store.folder(done) / "result.json", (1, 1))
    store.write_failure(failed, "it diverged")
    job = pack_job(tiny, [done, failed, slow], time_minutes=10)
    for start in range(1, STARTS_IN_VAIN + 1):
        job.started = time.time() - 9 * 60
        again = job.checkpoint()
        assert (again is None) == (start == STARTS_IN_VAIN)
        job = again.function if again else None
    assert store.failure(slow) == (
        "in 3 starts of up to 10 minutes its job came to no checkpoint: raise time_minutes in the cluster's file"
    )
    assert store.failure(failed) == "it diverged"
    assert store.failure(done) is None


@pytest.mark.parametrize("what", ["checkpoint.pt", "result.json", "a short start"])
def test_progress_or_a_preemption_begins_the_count_anew(tiny, tiny_plan, what):
    runs = tiny_plan.runs()
    job = pack_job(tiny, runs, time_minutes=10)
    job.in_vain, job.started = STARTS_IN_VAIN - 1, time.time() - (60 if what == "a short start" else 9 * 60)
    if what != "a short start":
        path = Store(tiny.store).folder(runs[1]) / what
        path.parent.mkdir(parents=True)
        path.touch()
    again = job.checkpoint()
    assert again.function.in_vain == 0
    assert again.function.runs == tuple(runs)


def test_a_task_of_a_shared_run_that_fails_ends_the_job(tiny, tiny_plan, monkeypatch):
    monkeypatch.setattr(PackJob, "_join_processes", lambda self: ["cpu"])
    wild = with_protocol(Plan(tiny, "", tiny_plan.cells[:1]), max_lr=1e20).runs()
    with pytest.raises(SystemExit):
        pack_job(tiny, wild, shape=Shape(1, 2))()
    assert "no longer a number" in Store(tiny.store).failure(wild[0])


def test_settings_on_the_node(tiny, tiny_plan, tmp_path):
    runs = tiny_plan.runs()
    here = pack_job(tiny, runs, scratch=str(tmp_path / "scratch"), runs_at_once=3)._settings_here()
    assert here.data_folder.is_relative_to(tmp_path / "scratch")
    assert here.local.workers == 3
    auto = replace(tiny, local=replace(tiny.local, device="auto"))
    assert pack_job(auto, runs, gpus=1)._settings_here().local.device == "cuda", "no slow success without its GPU"
    assert pack_job(auto, runs, gres="gpu:1")._settings_here().local.device == "cuda"
    assert pack_job(auto, runs)._settings_here().local.device == "auto"


def test_its_pickle_is_small_and_loads_in_a_fresh_process(tiny, tiny_plan, tmp_path):
    job = pack_job(tiny, tiny_plan.runs(), distributed={"imagenet": Shape(2, 4)}, setup=("a",))
    (tmp_path / "job.pkl").write_bytes(cloudpickle.dumps(job))
    script = "import pickle, sys; job = pickle.load(open(sys.argv[1], 'rb')); print(*(r.fingerprint for r in job.runs))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "job.pkl")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [run.fingerprint for run in job.runs]
    assert (tmp_path / "job.pkl").stat().st_size < 20_000
