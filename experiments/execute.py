"""Do one task on one run, in this process: what every executor's workers call."""

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.provenance import provenance
from experiments.settings import LocalSettings, Settings
from experiments.store import Store
from xnets.data import PackedData, open_data
from xnets.errors import CannotWrite, Stopped, XNetsError
from xnets.files import DISK_ERRORS
from xnets.group import ALONE, Group
from xnets.layers import kernels
from xnets.training import Run
from xnets.training.loop import CHECKPOINT, evaluate_run, train

OnEpoch = Callable[[dict[str, Any]], None]


def prepare_torch(local: LocalSettings, device_name: str) -> torch.device:
    """Set this process's threads, kernel and determinism, and return its device."""
    torch.set_num_threads(local.threads)
    kernels(local.kernel)
    torch.use_deterministic_algorithms(local.deterministic)
    if local.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(device_name)


def attempt(
    task: str, run: Run, settings: Settings, device: torch.device, on_epoch: OnEpoch, stop: Callable[[], bool],
    group: Group = ALONE,
) -> tuple[str, str | None]:  # fmt: skip
    """execute(), its end in words, nothing raised: ("done", None), ("stopped", None), ("failed" or "full", reason)."""
    try:
        seconds, compiled = 60 * settings.local.checkpoint_minutes, settings.local.compile
        execute(
            task, run, Store(settings.store), settings.data_folder, device, seconds, on_epoch, stop, group, compiled
        )
    except Stopped:
        return "stopped", None
    except CannotWrite as error:
        return "full", str(error)
    except XNetsError as error:
        return "failed", str(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return "full", f"{error.filename or settings.store}: {error.strerror}: free space, then start again"
        where = Store(settings.store).folder(run) / "traceback.txt"
        with contextlib.suppress(OSError):
            where.write_text(traceback.format_exc())
        return "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (see {where})"
    return "done", None


def execute(
    task: str, run: Run, store: Store, data_folder: Path, device: torch.device, checkpoint_seconds: float,
    on_epoch: OnEpoch = lambda record: None, stop: Callable[[], bool] = lambda: False, group: Group = ALONE,
    compiled: bool = False,
) -> None:  # fmt: skip
    """Train or evaluate `run` unless that is done, and leave the outcome in the store.

    Whoever else is at this run (another machine, a job that SLURM believes dead) is waited for. Every process of
    `group` calls this; rank 0 alone looks into the store, writes there and is told of epochs.
    """
    data = open_data(data_folder / run.dataset)
    if data.digest != run.data_digest:
        raise XNetsError(
            f"The data in {data.folder} are not those that {run.label} was planned for: prepare them again."
        )
    first = group.rank == 0
    with store.working_on(run, stop, group.any, mine=first):
        outcome = {"train": store.result, "evaluate": store.evaluation}[task]
        if not group.any(first and outcome(run) is None)[0]:
            return
        if task == "evaluate":
            _evaluate(run, store, data, device, group)
        elif first:
            _train(run, store, data, device, checkpoint_seconds, on_epoch, stop, group, compiled)
        else:
            train(run, data, store.folder(run), device, checkpoint_seconds, stop=stop, group=group)


def _train(
    run: Run, store: Store, data: PackedData, device: torch.device, checkpoint_seconds: float, on_epoch: OnEpoch,
    stop: Callable[[], bool], group: Group, compiled: bool,
) -> None:  # fmt: skip
    """As rank 0."""
    folder = store.folder(run)
    log = folder / "history.jsonl"
    started = time.time()
    about = {**provenance(device), "compiled": compiled and group.size == 1, "processes": group.size}
    before = store.seconds_before(run)
    log.unlink(missing_ok=True)
    (folder / "evaluation.json").unlink(missing_ok=True)  # of a network that is about to be replaced

    def note(record: dict[str, Any]) -> None:
        with open(log, "a") as file:
            file.write(json.dumps(record) + "\n")
        on_epoch(record)

    where = {
        key: about[key] for key in ("host", "slurm_job", "device", "torch", "kernel", "threads", "commit", "dirty")
    }
    with store.noted_attempt(run, where):
        result = train(run, data, folder, device, checkpoint_seconds, note, stop, group, compiled)
        about["attempts"] = [attempt for attempt in store.attempts(run) if "began" in attempt]
        about["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about["seconds"] = round(before + time.time() - started, 2)
        store.write_result(run, {"run": run.to_dict(), **result, "provenance": about})
        (folder / CHECKPOINT).unlink(missing_ok=True)  # not before: without a result it is all there is of the run


def _evaluate(run: Run, store: Store, data: PackedData, device: torch.device, group: Group) -> None:
    seen = evaluate_run(run, data, store.folder(run), device, group)
    if group.rank > 0:
        return
    if seen.pop("weights_sha256") != store.result(run)["weights_sha256"]:
        raise XNetsError(f"{store.folder(run)} holds another network than its result.json: delete it to train again.")
    store.write_evaluation(run, seen)
