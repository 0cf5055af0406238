"""What the paper prints, what the authors logged, what we measured and what it costs: one line for each row."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from experiments.cells import Cell
from experiments.plan import Plan, make_plan, plan_of
from experiments.published import published_records, published_scales, results_of
from experiments.results import RunResult, read_results
from experiments.rows import Row, read_rows
from experiments.settings import Settings
from experiments.statistics import binomial_se, summarise
from xnets.data import NUM_CLASSES
from xnets.errors import XNetsError

PRINTED = ("top1", "sd", "max", "min", "range", "params_M", "flops_M", "source")
OURS = ("n", "mean", "sd", "low", "high", "min", "max", "best_mean", "n_test", "test_se")
WORDS = ("row", "model", "dataset", "printed_source", "flops_unit", "log", "note", "scale", "trained_on")
# counting rule in cost.csv -> how its columns end
COUNTINGS = {"paper": "", "authors": "_authors", "dense/C": "_dense_over_C"}

Costs = dict[
    tuple[str, int, str], tuple[float, float]
]  # (model, classes, counting rule): parameters and MACs, both in M


def item_frame(item: str, settings: Settings) -> pd.DataFrame:
    """The rows of one table or figure ("table1" .. "figure6"), in the paper's order.

    Columns, accuracies in % and counts in millions:
        row, model, dataset: as in the paper; model is empty for methods of other people.
        printed_*: what the paper prints, from experiments/paper/rows.csv, and printed_source; flops_unit is what one
            printed FLOP is, "MACs" or "2 MACs".
        log, log_best, log_final: the authors' log and its best and last test epoch.
        scale, trained_on: params.yaml's scale and the data set it really uses; trained_on is empty where it trains
            nothing for this row, and so is all of ours_*.
        ours_*: of the final epoch over n runs: mean, sd, 95 % Student-t interval low to high (cut at 0 and 100), min,
            max; best_mean is the mean of the best test epochs, which is what the authors report; n_test test images,
            and test_se, the binomial standard error in points of an accuracy seen on so many.
        published_<scale>_*: likewise of the runs in published/<scale>/, for each scale that has any for this item; n of
            the `wanted` runs that params.yaml asks for.
        params_M, macs_M: of the full network on the paper's own data, whatever the scale trains, under the paper's
            rule; *_authors: of the network that the authors trained; *_dense_over_C: the dense network's, divided by C.

    Raises:
        XNetsError: a file of results that is missing, damaged, surplus or of another run.
    """
    return item_frames([item], settings)[item]


def item_frames(items: list[str], settings: Settings) -> dict[str, pd.DataFrame]:
    """`item_frame` of several items, reading the results once."""
    plan = make_plan(settings)
    results, costs = read_results(plan), _read_costs(plan)
    scales = {scale: plan_of(settings, scale) for scale in published_scales()}
    published = {scale: results_of(published_records(there)) for scale, there in scales.items()}
    frames = {}
    for item in items:
        rows = [row for row in read_rows() if row.item == item]
        shown = {s: there for s, there in scales.items() if any(published[s].get(there.cell_of(row)) for row in rows)}
        frame = pd.DataFrame([
            {**_line(row, plan, results, costs), **_published(row, shown, published)} for row in rows
        ])  # fmt: skip
        numbers = [name for name in frame if name not in WORDS]
        # whole numbers that may be missing
        whole = {name: "Int64" for name in numbers if name.endswith(("_n", "_n_test", "_wanted"))}
        frames[item] = frame.astype(dict.fromkeys(numbers, float) | whole)
    return frames


def published_in(frame: pd.DataFrame) -> list[str]:
    """Scales of which the frame has published runs."""
    ends = "_wanted"
    return [name.removeprefix("published_").removesuffix(ends) for name in frame if name.endswith(ends)]


def _line(row: Row, plan: Plan, results: dict[Cell, list[RunResult]], costs: Costs) -> dict[str, Any]:
    cell = plan.cell_of(row)
    return {
        "row": row.row, "model": row.model, "dataset": row.dataset,
        **{f"printed_{name}": getattr(row, f"printed_{name}") for name in PRINTED}, "flops_unit": row.flops_unit,
        "log": row.log, "log_best": row.log_best, "log_final": row.log_final, "note": row.note,
        "scale": plan.settings.scale, "trained_on": cell.dataset if cell else "",
        **(_ours(results[cell]) if cell else dict.fromkeys(f"ours_{name}" for name in OURS)),
        **_cost(row, costs, plan),
    }  # fmt: skip


def _published(
    row: Row, plans: dict[str, Plan], results: dict[str, dict[Cell, list[RunResult]]]
) -> dict[str, Any]:  # fmt: skip
    said: dict[str, Any] = {}
    for scale, plan in plans.items():
        cell = plan.cell_of(row)
        runs = results[scale].get(cell, []) if cell else []
        found = _ours(runs) if runs else dict.fromkeys(f"ours_{name}" for name in OURS)
        said |= {name.replace("ours", f"published_{scale}"): value for name, value in found.items()}
        said[f"published_{scale}_wanted"] = len(cell.seeds) if cell else None
    return said


def _ours(runs: list[RunResult]) -> dict[str, Any]:
    summary, n_test = summarise([run.top1 for run in runs]), runs[0].n_test
    best = summarise([run.best_top1 for run in runs]).mean
    said = {**asdict(summary), "best_mean": best, "n_test": n_test, "test_se": binomial_se(summary.mean, n_test)}
    if summary.n > 1:  # with two runs it easily reaches beyond what an accuracy can be
        said |= {"low": max(0.0, summary.low), "high": min(100.0, summary.high)}
    return {f"ours_{name}": said[name] for name in OURS}


def _read_costs(plan: Plan) -> Costs:
    path = plan.settings.results / "cost.csv"
    try:
        lines = pd.read_csv(path)[["model", "num_classes", "counting", "parameters", "macs"]]
    except FileNotFoundError:
        raise XNetsError(f"{path} is missing: run `dvc repro cost`.") from None
    except (KeyError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise XNetsError(f"{path} is damaged: delete it and run `dvc repro cost`.") from None
    return {
        (model, num_classes, counting): (parameters / 1e6, macs / 1e6)
        for model, num_classes, counting, parameters, macs in lines.itertuples(index=False)
    }


def _cost(row: Row, costs: Costs, plan: Plan) -> dict[str, float | None]:
    """Millions of parameters and multiply-adds; None where there is no such count, e.g. for other people's networks."""
    counted: dict[str, float | None] = {}
    for counting, end in COUNTINGS.items():
        found = costs.get((row.model, NUM_CLASSES.get(row.dataset), counting))
        if row.model and counting == "paper" and not found:
            where = plan.settings.results / "cost.csv"
            raise XNetsError(f"{where} does not count {row.model}, a row of {row.item}: run `dvc repro -f cost`.")
        counted[f"params_M{end}"], counted[f"macs_M{end}"] = found or (None, None)
    return counted
