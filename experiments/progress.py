"""How far a stage is and how long it will take."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from xnets.training import Run


class Progress:
    """One bar for all runs of a stage. Runs count by their estimated seconds, so that size does not mislead."""

    def __init__(self, stage: str, runs: list[Run], seconds: Callable[[Run], float], done_before: int) -> None:
        self.weights = {run: max(seconds(run), 1e-3) for run in runs}
        self.given: dict[Run, float] = {}
        self.total, self.done, self.failed = len(runs) + done_before, done_before, 0
        self.bar = tqdm(
            desc=f"{stage} {self.done}/{self.total} runs", total=sum(self.weights.values()), file=sys.stderr,
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}",
            mininterval=0.5 if sys.stderr.isatty() else 20, delay=0.1,
        )  # fmt: skip
        self.stage, self.where = stage, ""

    def on_event(self, kind: str, run: Run | None, content: Any) -> None:
        """Take in one event of an executor."""
        if kind == "note":
            self.bar.write(f"  {content}", file=sys.stderr)
        elif run is None:
            self.where = content
            self.bar.set_postfix_str(content, refresh=False)
        elif kind == "epoch":
            epochs = content["epoch"] + 1
            self._advance(run, self.weights[run] * epochs / run.protocol.epochs)
            text = f"{run.label} epoch {epochs}/{run.protocol.epochs}, test {content['test_top1']:.1f} %"
            self.bar.set_postfix_str(f"{self.where}; {text}" if self.where else text, refresh=False)
        elif kind in ("done", "failed"):
            self._advance(run, self.weights[run])
            self.done += kind == "done"
            self.failed += kind == "failed"
            failed = f", {self.failed} failed" if self.failed else ""
            self.bar.set_description_str(f"{self.stage} {self.done}/{self.total} runs{failed}", refresh=False)
            if kind == "failed":
                self.bar.write(f"  {run.label}: {content}", file=sys.stderr)
        self.bar.update(0)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()

    def _advance(self, run: Run, to: float) -> None:
        """Count `run` up to `to`; a run that resumed starts where its checkpoint was."""
        self.bar.update(to - self.given.get(run, 0.0))
        self.given[run] = to
