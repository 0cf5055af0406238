"""Do one task on one run, in this process: what every executor's workers call."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.provenance import provenance
from experiments.store import Store
from xnets.data import open_data
from xnets.errors import XNetsError
from xnets.training import Run
from xnets.training.distributed import ALONE, Group
from xnets.training.loop import evaluate_run, train

OnEpoch = Callable[[dict[str, Any]], None]


def execute(
    task: str, run: Run, store: Store, data_folder: Path, device: torch.device, checkpoint_seconds: float,
    on_epoch: OnEpoch = lambda record: None, group: Group = ALONE,
) -> None:  # fmt: skip
    """Train or evaluate `run` unless that is done, and leave the outcome in the store.

    Every process of `group` calls this; rank 0 alone looks into the store, writes there and is told of epochs.
    """
    data = open_data(data_folder / run.dataset)
    if data.digest != run.data_digest:
        raise XNetsError(
            f"The data in {data.folder} are not those that {run.label} was planned for: prepare them again."
        )
    first = group.rank == 0
    if task == "train" and group.any(first and store.result(run) is None)[0]:
        _train(run, store, data, device, checkpoint_seconds, on_epoch, group)
    elif task == "evaluate" and group.any(first and store.evaluation(run) is None)[0]:
        seen = evaluate_run(run, data, store.folder(run), device, group)
        if not first:
            return
        if seen.pop("weights_sha256") != store.result(run)["weights_sha256"]:
            raise XNetsError(
                f"{store.folder(run)} holds another network than its result.json: delete it to train again."
            )
        store.write_evaluation(run, seen)


def _train(
    run: Run, store: Store, data: Any, device: torch.device, checkpoint_seconds: float, on_epoch: OnEpoch, group: Group
) -> None:
    folder = store.folder(run)
    if group.rank > 0:
        train(run, data, folder, device, checkpoint_seconds, group=group)
        return
    started = time.time()
    log = folder / "history.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    except OSError as error:
        raise XNetsError(f"Cannot write {folder} ({error.strerror}): choose another store in params.yaml.") from None

    def note(record: dict[str, Any]) -> None:
        with open(log, "a") as file:
            file.write(json.dumps(record) + "\n")
        on_epoch(record)

    result = train(run, data, folder, device, checkpoint_seconds, note, group=group)
    about = {
        **provenance(device),
        "processes": group.size,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    about["seconds"] = round(time.time() - started, 2)
    store.write_result(run, {"run": run.to_dict(), **result, "provenance": about})
