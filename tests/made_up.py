"""Runs that are finished in a store, though nobody trained them."""

from typing import Any

from experiments.store import Store
from xnets.training import Run


def finish(
    store: Store, run: Run, top1: float | list[float], weights: str = "w", n: int = 10_000, **about: Any
) -> None:
    """Write a sound result and its evaluation; top1: of each epoch, or of all. about: its provenance."""
    course = top1 if isinstance(top1, list) else [top1] * run.protocol.epochs
    epochs = [{"epoch": i, "lr": 0.1, "test_top1": accuracy} for i, accuracy in enumerate(course)]
    result = {"run": run.to_dict(), "epochs": epochs, "graphs_sha256": "g" * 64, "weights_sha256": weights * 64}
    store.write_result(run, {**result, "provenance": about})
    store.write_evaluation(run, {"top1": course[-1], "n": n, "loss": 1.0, "top5": 99.0})
