"""What a job does on its node: the runs of one pack, in a pool of its own, until done or told to stop."""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import submitit

from experiments.local import STOPPED, run_in_pool, stop_workers
from experiments.processes import STOP_SIGNALS
from experiments.settings import Settings
from experiments.store import Store
from slurm.preset import Preset, Shape
from slurm.queue import address_of
from slurm.staging import stage
from xnets.training import Run

PATIENCE = 0.8  # of signal_seconds, for all checkpoints together: what is left is for being requeued
STARTS_IN_VAIN = 3  # starts of half its time or more without a checkpoint, after which a job is not requeued again


class PackJob:
    """The callable that submitit pickles. task: "train" also evaluates what it has trained.

    SIGUSR2 (the end of its time, or preemption where the cluster warns) makes it write its checkpoints and be requeued;
    SIGTERM (preemption elsewhere, scancel) makes it write them and wait for what SLURM decides.
    """

    def __init__(self, task: str, runs: tuple[Run, ...], settings: Settings, preset: Preset, shape: Shape) -> None:
        self.task, self.runs, self.settings, self.preset, self.shape = task, runs, settings, preset, shape
        self.in_vain, self.started, self.stopping = 0, 0.0, False

    def __call__(self) -> None:
        """Do all that is still to do. What it did is in the store."""
        self.started = time.time()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        store, settings = Store(self.settings.store), self._settings_here()
        devices = self._join_processes() if self.shape.processes > 1 else None
        todo = [run for run in self.runs if store.failure(run) is None]  # a restart does not repeat a failure
        tasks = ("train", "evaluate") if self.task == "train" else (self.task,)
        failed = run_in_pool(tasks, todo, settings, _log, lambda: self.stopping, devices)
        if self.stopping or (self.shape.processes > 1 and STOPPED in failed.values()):
            _wait_for_the_end()  # of several processes, the first one has the job requeued
        if failed and self.shape.processes > 1:
            sys.exit(1)  # the other processes wait for this one: let SLURM end them all

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """submitit's hook on SIGUSR2, in the main process: have the checkpoints written; say how to go on."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        stop_workers()
        deadline = time.monotonic() + PATIENCE * self.preset.signal_seconds
        for worker in multiprocessing.active_children():
            worker.join(max(0.0, deadline - time.monotonic()))
        again = PackJob(self.task, self.runs, self.settings, self.preset, self.shape)
        long_enough = time.time() - self.started > 0.5 * 60 * self.preset.time_minutes
        again.in_vain = self.in_vain + 1 if long_enough and not self._has_progress() else 0
        if again.in_vain < STARTS_IN_VAIN:
            return submitit.helpers.DelayedSubmission(again)
        store = Store(self.settings.store)
        for run in self.runs:
            if not store.is_done(run) and store.failure(run) is None:
                store.write_failure(
                    run, f"in {STARTS_IN_VAIN} starts of up to {self.preset.time_minutes} minutes its job came to no "
                    "checkpoint: raise time_minutes in the cluster's file",
                )  # fmt: skip
        return None  # not requeued

    def _settings_here(self) -> Settings:
        """The settings on this node: data from its scratch, as many workers as runs may share the job."""
        settings = self.settings
        if self.preset.scratch:
            names = sorted({run.dataset for run in self.runs})
            folders = {stage(settings.data_folder, name, self.preset.scratch) for name in names}
            settings = replace(settings, data_folder=folders.pop()) if len(folders) == 1 else settings
        local = replace(settings.local, workers=self.preset.runs_at_once, device=self._device())
        return replace(settings, local=local)

    def _device(self) -> str:
        """A job that asks for GPUs does not look whether there are any: a node without is a failure, not slow."""
        asked = self.settings.local.device
        return self.preset.device if asked == "auto" and self.preset.device == "cuda" else asked

    def _join_processes(self) -> list[str]:
        """Tell this process's worker how to find the others' (torch.distributed's variables); return its device."""
        environment = submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        os.environ["MASTER_ADDR"] = address_of(environment.master_addr)
        return ["cuda" if self._device() == "cuda" else "cpu"]

    def _on_sigterm(self, *_: Any) -> None:
        self.stopping = True
        stop_workers()

    def _has_progress(self) -> bool:
        store = Store(self.settings.store)
        files = [store.folder(run) / name for run in self.runs for name in ("checkpoint.pt", "result.json")]
        return any(path.exists() and path.stat().st_mtime >= self.started for path in files)


def _wait_for_the_end() -> None:
    """A job that ends by itself counts as complete, and SLURM would not requeue it after a preemption."""
    print("checkpoints are written; waiting for SLURM to end this job", flush=True)
    time.sleep(600)
    sys.exit(1)


def _log(kind: str, run: Run | None, content: Any) -> None:
    """A line of the job's log for each event."""
    if run is not None:
        record = f"epoch {content['epoch'] + 1}, test {content['test_top1']:.2f} %" if kind == "epoch" else content
        print(time.strftime("%H:%M:%S"), kind, run.label, record or "", f"[{os.getpid()}]", flush=True)
