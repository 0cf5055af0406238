"""Whether a result.json or an evaluation.json can be what a run computed."""

import math
from typing import Any

from experiments.store import Store
from xnets.errors import XNetsError
from xnets.training import Run

# Points between the test accuracy of a run's last epoch and that of its evaluation, which are of the same network: 0 on
# one machine; on another, or without the compiled kernels of training, rounding decides a few images otherwise.
MOST_APART = 0.2
TEXT, NUMBER, NOTHING = str, (int, float), type(None)
PROVENANCE = {
    "attempts": (list,), "commit": (TEXT, NOTHING), "compiled": (bool,), "cpu_capability": (TEXT,),
    "cuda": (TEXT, NOTHING), "deterministic": (bool,), "device": (TEXT,), "dirty": (bool, NOTHING), "finished": (TEXT,),
    "host": (TEXT,), "kernel": (TEXT,), "numpy": (TEXT,), "platform": (TEXT,), "processes": (int,), "python": (TEXT,),
    "seconds": NUMBER, "slurm_job": (TEXT, NOTHING), "threads": (int,), "torch": (TEXT,),
}  # fmt: skip
# What estimates, tracking and remaking read; without the others a result of an older version is as good.
NEEDED = ("commit", "cuda", "deterministic", "device", "finished", "kernel", "seconds", "threads")
MOST_THREADS = 4096  # and processes; torch asked for a thousand million threads dies without a word
TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000}
RESULT_KEYS = {"epochs", "fingerprint", "graphs_sha256", "provenance", "run", "weights_sha256"}


def sound_result(store: Store, run: Run) -> dict[str, Any] | None:
    """The run's result, or None if it is not done. Raises XNetsError if it is damaged, another run's or has a fault."""
    result = store.result(run)
    if result is not None and (fault := result_fault(result, run)):
        raise XNetsError(f"{store.folder(run) / 'result.json'} {fault}: delete it to train this run again.")
    return result


def sound_evaluation(store: Store, run: Run) -> dict[str, Any] | None:
    """The run's evaluation, likewise."""
    seen = store.evaluation(run)
    if seen is not None and (fault := evaluation_fault(seen, run)):
        raise XNetsError(f"{store.folder(run) / 'evaluation.json'} {fault}: delete it to evaluate this run again.")
    return seen


def result_fault(result: Any, run: Run) -> str | None:
    """Why this cannot be the content of the run's result.json, or None."""
    if not isinstance(result, dict) or not result.keys() >= RESULT_KEYS or not isinstance(result["provenance"], dict):
        return "is not a result"
    if not isinstance(result["weights_sha256"], str):
        return "is not a result"
    if result["fingerprint"] != run.fingerprint or result["run"] != run.to_dict():
        return "is of another run"
    epochs = result["epochs"]
    if not isinstance(epochs, list) or not all(isinstance(record, dict) for record in epochs):
        return "is not a result"
    if [record.get("epoch") for record in epochs] != list(range(run.protocol.epochs)):
        return f"does not have the run's {run.protocol.epochs} epochs"
    if not all(_is_percentage(record.get("test_top1")) for record in epochs):
        return "has an epoch without an accuracy"
    if not all(map(_is_finite, epochs)):
        return "has an epoch with a number that is none"
    if fault := _provenance_fault(result["provenance"]):
        return fault
    return apart(result, result["evaluation"]) if "evaluation" in result else None  # a published record holds both


def apart(result: dict[str, Any], evaluation: Any) -> str | None:
    """How an evaluation, sound or not, contradicts the last epoch of a sound result, or None."""
    last, seen = result["epochs"][-1]["test_top1"], evaluation.get("top1") if isinstance(evaluation, dict) else None
    if not _is_percentage(seen) or abs(seen - last) <= MOST_APART:
        return None
    return f"says that its evaluation came to {seen:.2f} %, and its last epoch to {last:.2f} %, with the same network"


def _provenance_fault(about: dict[str, Any]) -> str | None:
    if lacking := [key for key in NEEDED if key not in about]:
        return f"lacks {', '.join(lacking)} in its provenance"
    wrong = {key for key, types in PROVENANCE.items() if key in about and type(about[key]) not in types}
    wrong |= {
        key for key in ("threads", "processes") if key not in wrong and not 1 <= about.get(key, 1) <= MOST_THREADS
    }
    if "attempts" not in wrong and not all(isinstance(attempt, dict) for attempt in about.get("attempts", [])):
        wrong.add("attempts")
    if "seconds" not in wrong and not 0 <= about["seconds"] < math.inf:
        wrong.add("seconds")
    return next((f"has {about[key]!r} for {key} in its provenance" for key in sorted(wrong)), None)


def evaluation_fault(evaluation: Any, run: Run) -> str | None:
    """Why this cannot be the content of the run's evaluation.json, or None."""
    if not isinstance(evaluation, dict) or not _is_percentage(evaluation.get("top1")) or not _is_finite(evaluation):
        return "is not an evaluation"
    if type(evaluation.get("n")) is not int or evaluation["n"] < 1:
        return "is not an evaluation"
    if not _is_percentage(top5 := evaluation.get("top5", 100)) or top5 < evaluation["top1"]:
        return "has a top-5 accuracy that is none, or below its top-1"
    loss = evaluation.get("loss")  # null: the network diverged
    if loss is not None and (type(loss) not in NUMBER or loss < 0):
        return "has a loss that is none"
    return "is of another run" if evaluation.get("fingerprint") != run.fingerprint else None


def partial(evaluation: dict[str, Any], run: Run) -> str | None:
    """How a sound evaluation is not of all test images. In a store it may be so: any folder of classes may be CIFAR."""
    whole = TEST_IMAGES.get(run.dataset, evaluation["n"])
    return None if evaluation["n"] == whole else f"has {evaluation['n']} test images where {run.dataset} has {whole}"


def _is_percentage(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100


def _is_finite(record: dict[str, Any]) -> bool:
    return all(math.isfinite(value) for value in record.values() if isinstance(value, float))
