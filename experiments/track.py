"""Mirror the run store into MLflow: a parent run for each table, figure and study, under it a child for each run of it.

Workers never touch MLflow: this one step does, as often as it likes. A child is known by its item and its fingerprint,
and what is there already stays as it is. The default store is sqlite:///mlflow.db; MLFLOW_TRACKING_URI names another.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from experiments.plan import Plan
from experiments.settings import ITEMS
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.training import Run

DEFAULT_URI = "sqlite:///mlflow.db"
PARENT_TAG, ITEM_TAG, FINGERPRINT_TAG = "mlflow.parentRunId", "xnets.item", "xnets.fingerprint"


def mirror(plan: Plan, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Bring MLflow up to date with the store; returns item -> fingerprints, all that is now mirrored.

    Raises XNetsError if the tracking server cannot be used.
    """
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    started = time.monotonic()
    try:
        added, mirrored = _mirror(MlflowClient(uri), plan)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise XNetsError(f"MLflow at {uri} cannot be used ({reason}): mend it, or set MLFLOW_TRACKING_URI.") from None
    say(f"track: {added} runs added to MLflow at {uri} in {time.monotonic() - started:.0f} s; look: mlflow ui")
    return mirrored


def _mirror(client: Any, plan: Plan) -> tuple[int, dict[str, Any]]:
    store = Store(plan.settings.store)
    experiment = _experiment(client, f"xnets-{plan.settings.scale}", plan.about)
    parents, children = _existing(client, experiment)
    wanted = dict(reversed(plan.runs_of_items().items()))  # MLflow shows the last made first
    added = 0
    for item, runs in wanted.items():
        if item not in parents:
            parent = client.create_run(experiment, run_name=_title(item), tags={ITEM_TAG: item})
            client.set_terminated(parent.info.run_id)
            parents[item] = parent.info.run_id
        for run in runs:
            result, seen = store.result(run), store.evaluation(run)
            if (item, run.fingerprint) in children or not result or not seen:
                continue
            _add_child(client, experiment, parents[item], item, run, result, seen)
            added += 1
    return added, {item: sorted(run.fingerprint for run in runs) for item, runs in wanted.items()}


def _experiment(client: Any, name: str, about: str) -> str:
    known = client.get_experiment_by_name(name)
    # the kind makes MLflow's page open on the table of runs
    tags = {"mlflow.note.content": about, "mlflow.experimentKind": "custom_model_development"}
    return known.experiment_id if known else client.create_experiment(name, tags=tags)


def _existing(client: Any, experiment: str) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Parents by item, and the (item, fingerprint) of children; a child that was not finished is removed."""
    parents, children, token = {}, set(), None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for found in page:
            tags = found.data.tags
            if ITEM_TAG not in tags:
                continue
            if FINGERPRINT_TAG not in tags:
                parents[tags[ITEM_TAG]] = found.info.run_id
            elif found.info.status == "FINISHED":
                children.add((tags[ITEM_TAG], tags[FINGERPRINT_TAG]))
            else:
                client.delete_run(found.info.run_id)
        token = page.token
        if not token:
            return parents, children


def _add_child(
    client: Any, experiment: str, parent: str, item: str, run: Run, result: dict[str, Any], seen: dict[str, Any]
) -> None:
    from mlflow.entities import Metric, Param

    tags = {PARENT_TAG: parent, ITEM_TAG: item, FINGERPRINT_TAG: run.fingerprint, "model": run.model.name}
    tags |= {"dataset": run.dataset, "commit": str(result["provenance"]["commit"])}
    child = client.create_run(experiment, run_name=run.label, tags=tags)
    now = child.info.start_time
    metrics = [
        Metric(name, record[name], now, record["epoch"])
        for record in result["epochs"]
        for name in ("lr", "train_loss", "train_top1", "test_loss", "test_top1")
        if record[name] is not None
    ]
    last = {"final_top1": seen["top1"], "best_top1": max(record["test_top1"] for record in result["epochs"])}
    last["seconds"] = result["provenance"]["seconds"]
    metrics += [Metric(name, value, now, 0) for name, value in last.items()]
    params = [Param(key, str(value)) for key, value in _flat(run.to_dict()).items()]
    params += [Param(f"provenance.{key}", str(value)) for key, value in result["provenance"].items()]
    for start in range(0, len(metrics), 900):  # MLflow takes 1,000 metrics and 100 parameters at a time
        client.log_batch(child.info.run_id, metrics[start : start + 900], params if start == 0 else [])
    client.set_terminated(child.info.run_id)


def _flat(said: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries with dotted keys."""
    flat = {}
    for key, value in said.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _title(item: str) -> str:
    return f"{item[:-1].capitalize()} {item[-1]}" if item in ITEMS else f"Study {item}"
