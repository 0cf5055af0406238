"""Tables 1-5: the paper's columns as printed, and beside them the authors' logs, our counts and our runs."""

from dataclasses import dataclass

import pandas as pd

from experiments.rows import read_csv
from experiments.scales import read_scales
from experiments.settings import Settings
from paper_figures.frames import item_frames, published_in

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column as it is read. Its heading is `group` over `name`; cells are text."""

    group: str
    name: str
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A table and what stands around it.

    data: every number in full, one line a row, for the .csv. columns: what the .md and .tex show of it. scale_line:
    what our numbers are. notes: one for each row, "" for most. remarks: on whole columns.
    """

    number: int
    caption: str
    scale_line: str
    data: pd.DataFrame
    columns: list[Column]
    notes: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class _Count:
    """A column of our counts: `name` in the frame times `factor`, shown with `decimals`."""

    name: str
    heading: str
    factor: float
    decimals: int


_PARAMS = _Count("params_M", "params, M", 1, 2)
_PARAMS_AUTHORS = _Count("params_M_authors", "params, M, authors' network", 1, 2)
_MACS = _Count("macs_M", "MACs, M", 1, 1)
_MACS_AUTHORS = _Count("macs_M_authors", "MACs, M, authors' network", 1, 1)
_FLOPS = _Count("macs_M", "FLOPs, 100M", 0.02, 1)
_FLOPS_AUTHORS = _Count("macs_M_authors", "FLOPs, 100M, authors' network", 0.02, 1)
_FLOPS_OVER_C = _Count("macs_M_dense_over_C", "FLOPs, 100M, dense / C", 0.02, 1)

CAPTIONS = {
    1: "ResNets and DenseNet-BCs on ImageNet, ordered by FLOPs.",
    2: "Compressed VGG16 on CIFAR-10.",
    3: "Compressed AlexNet on ImageNet.",
    4: "Stability over training runs on CIFAR-10 (the paper: 10 runs).",
    5: "MobileNet-0.5 with grouped (G) and expander (X) layers on ImageNet (the paper: 2 runs).",
}
_COUNTS = {
    1: (_FLOPS, _FLOPS_AUTHORS, _FLOPS_OVER_C, _PARAMS),
    2: (_PARAMS, _PARAMS_AUTHORS, _MACS),
    3: (_PARAMS, _PARAMS_AUTHORS, _MACS),
    4: (_PARAMS, _MACS),
    5: (_MACS, _MACS_AUTHORS, _PARAMS),
}
_FLOPS_REMARK = (
    "FLOPs: in this table 2 for each multiply-add (MAC); elsewhere in the paper, but for Fig. 5, a FLOP is a MAC. The "
    "printed X- rows are the printed dense rows divided by 2."
)
_LOG_REMARK = (
    "authors' log: test accuracy in their own training log. The best epoch was picked on the test set and is what the "
    "paper reports; the last epoch is the last one in the log."
)
_COUNT_REMARK = (
    "counted by us: the full-size network that xnets builds by the paper's rule, whatever was trained here. Authors' "
    "network: with the layers that their logs and code leave dense, and their wider MobileNet. MACs of convolutions "
    "and linear layers; parameters with batch norms and biases."
)


def build_tables(settings: Settings) -> list[Table]:
    """Tables 1-5 at the scale of params.yaml. Raises XNetsError if results are missing or damaged."""
    frames = item_frames([f"table{number}" for number in CAPTIONS], settings)
    return [_build(number, frames[f"table{number}"]) for number in CAPTIONS]


def scale_line(frame: pd.DataFrame) -> str:
    """What our numbers in this frame are, in a sentence or two for the face of a table."""
    scale = frame["scale"].iloc[0]
    trained = frame[frame["trained_on"] != ""]
    if not len(trained):
        return f"Scale {scale} does not train these networks."
    line = f"Scale {scale}: {read_scales()[scale]['about']}."
    if (trained["trained_on"] != trained["dataset"]).any():
        line += " The accuracies of this scale are NOT a reproduction of the paper's and cannot be compared with them."
    return line


def _build(number: int, frame: pd.DataFrame) -> Table:
    ours = f"ours ({', '.join([frame['scale'].iloc[0], *sorted(set(frame['trained_on']) - {''})])})"
    printed = _as_printed(number, frame)
    columns = [Column("printed", name, list(cells)) for name, cells in printed.items()]
    logged, trained = bool(frame["log_best"].notna().any()), bool(frame["ours_n"].notna().any())
    if logged:
        columns += [
            Column("authors' log, %", "best epoch", _cells(frame["log_best"], 2)),
            Column("authors' log, %", "last epoch", _cells(frame["log_final"], 2)),
        ]
    for count in _COUNTS[number]:
        columns.append(Column("counted by us", count.heading, _cells(frame[count.name] * count.factor, count.decimals)))
    if trained:
        columns += [
            Column(ours, "last epoch, % (runs)", _accuracies(frame, "ours")),
            Column(ours, "best epoch, %", _cells(frame["ours_best_mean"], 2)),
        ]
    for scale in published_in(frame):
        some = f"published_{scale}"
        columns += [
            Column(f"published ({scale})", "last epoch, % (runs of those wanted)", _accuracies(frame, some)),
            Column(f"published ({scale})", "best epoch, %", _cells(frame[f"{some}_best_mean"], 2)),
        ]
    remarks = [_FLOPS_REMARK] * (number == 1) + [_LOG_REMARK] * logged + [_COUNT_REMARK]
    remarks += [_ours_remark(frame)] * trained + [
        f"published ({scale}): the runs in published/{scale}/, as ours. {read_scales()[scale]['about']}."
        for scale in published_in(frame)
    ]
    data = pd.concat([printed.add_prefix("printed: "), frame], axis=1)
    data = data.rename(columns={name: name.replace("ours_", f"{ours}: ") for name in frame})
    return Table(number, CAPTIONS[number], scale_line(frame), data, columns, list(frame["note"]), remarks)


def _as_printed(number: int, frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's own columns, word for word, without the heads of its sections."""
    lines = [line for line in read_csv(f"table{number}.csv") if line.get("Accuracy") != ""]
    printed = pd.DataFrame(lines, index=frame.index).drop(columns="bold", errors="ignore")
    return printed.rename(columns={"section": "Family"})


def _cells(values: pd.Series, decimals: int) -> list[str]:
    return [MISSING if pd.isna(value) else f"{value:.{decimals}f}" for value in values]


def _accuracies(frame: pd.DataFrame, whose: str) -> list[str]:
    """93.40 ± 0.18 [93.27, 93.53] (10): mean, sd, interval and runs; without what one run does not have."""
    said = []
    for line in frame.to_dict("records"):
        n, mean, sd, low, high = (line[f"{whose}_{name}"] for name in ("n", "mean", "sd", "low", "high"))
        if pd.isna(n):
            said.append(MISSING)
            continue
        interval = f" ± {sd:.2f} [{low:.2f}, {high:.2f}]" if n > 1 else ""
        wanted = f" of {line[f'{whose}_wanted']}" if f"{whose}_wanted" in line else ""
        said.append(f"{mean:.2f}{interval} ({n}{wanted})")
    return said


def _ours_remark(frame: pd.DataFrame) -> str:
    images, error = frame["ours_n_test"].max(), frame["ours_test_se"].max()
    return (
        "ours: mean ± standard deviation [95 % Student-t interval of the mean, cut at 0 and 100] (number of runs) of "
        "the accuracy after the last epoch; a single run has neither deviation nor interval. The best epoch, mean over "
        f"the same runs, is picked on the test set and so flatters. The test set has {images} images, which alone "
        f"makes an accuracy uncertain by up to {error:.2f} points (binomial standard error)."
    )
