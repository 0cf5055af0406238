"""The figures of `make bench`."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

SHOWN = ["direct", "direct, block 4", "grouped", "masked", "MKL CSR", "limit"]
TIMES = (0.5, 1, 2, 4, 8, 16, 32)
NETWORK_METHODS = {
    "training step": [
        "dense", "X, for_training", "X, auto", "X, dense kernel", "dense, for_training", "masked",
        "grouped, for_training", "grouped", "limit",
    ],
    "inference": [
        "dense", "X, for_inference", "X, auto", "dense, for_inference", "masked", "grouped, for_inference", "grouped",
        "limit",
    ],
}  # fmt: skip


def draw_layers(layers: pd.DataFrame, order: list[str], path: Path) -> None:
    """Ratio to dense against C, a panel for each layer and pass; one thread."""
    shown = layers[(layers["threads"] == 1) & layers["method"].isin(SHOWN)]
    sns.set_theme(style="whitegrid", context="paper")
    dashes = {method: (2, 2) if method == "limit" else "" for method in SHOWN}
    grid = sns.relplot(
        shown, x="compression", y="ratio", hue="method", style="method", hue_order=SHOWN, style_order=SHOWN,
        kind="line", markers=True, dashes=dashes, row="pass", col="layer", col_order=order, height=2.1, aspect=0.85,
    )  # fmt: skip
    grid.set(xscale="log", yscale="log", xticks=(2, 4, 8, 16), yticks=(0.1, 0.3, 1, 3, 10), ylim=(0.05, 70))
    grid.set(xticklabels=(2, 4, 8, 16), yticklabels=("0.1", "0.3", "1", "3", "10"))
    grid.set_titles("{col_name}\n{row_name}").set_axis_labels("compression C", "times as fast as dense")
    for axes in grid.axes.flat:
        axes.axhline(1, color="black", linewidth=0.8)
        axes.minorticks_off()
    machine, least = shown["machine"].iloc[0], shown["n"].min()
    grid.figure.suptitle(
        f"X-Conv and X-Linear against dense, fp32, one thread of {machine}; medians of at least {least:.0f} rounds",
        y=1.08,
    )
    grid.figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(grid.figure)


def draw_networks(networks: pd.DataFrame, path: Path) -> None:
    """Ratio to the dense twin; one thread, quartiles as whiskers."""
    shown = networks[networks["threads"] == 1]
    figure, panels = plt.subplots(1, 2, figsize=(11, 7.5), sharey=True)
    names = list(dict.fromkeys(shown["network"]))
    kinds = list(dict.fromkeys(m.replace("inference", "training") for ms in NETWORK_METHODS.values() for m in ms[1:]))
    colours = dict(zip(kinds, sns.color_palette(n_colors=len(kinds)), strict=True))  # the same on both sides
    for axes, (what, methods) in zip(panels, NETWORK_METHODS.items(), strict=True):
        mine = shown[shown["pass"] == what]
        present = [m for m in methods if m in set(mine["method"]) - {"dense"}]  # dense is the line at 1
        for i, method in enumerate(present):
            rows = mine[mine["method"] == method].set_index("network")
            places = [names.index(n) + (i - len(present) / 2 + 0.5) * 0.8 / len(present) for n in rows.index]
            spread = [rows["to_dense"] - rows["to_dense_low"], rows["to_dense_high"] - rows["to_dense"]]
            axes.barh(
                places,
                rows["to_dense"],
                0.8 / len(present),
                xerr=spread,
                label=method,
                error_kw={"linewidth": 0.7},
                color=colours[method.replace("inference", "training")],
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(what)
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.5, 40)
        axes.set_xticks(TIMES, [str(n) for n in TIMES])
        axes.set_xlabel("times as fast as the dense network")
        axes.set_yticks(range(len(names)), names)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3)
    panels[0].invert_yaxis()
    figure.suptitle(f"Whole networks, fp32, one thread of {shown['machine'].iloc[0]}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
