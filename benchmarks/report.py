"""`make bench`'s last step: benchmarks/kernels.md and the figures from the csv files beside this file."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

HERE = Path(__file__).parent
# What was asked of the forward pass, at C = 2, 4, 8, 16; of both passes together, 0.8 of it.
TARGETS = {
    "3x3 256@14": (1.6, 3.2, 5.5, 8.3), "3x3 512@4": (3.0, 5.4, 9.8, 17), "3x3 240-60@32": (1.5, 2.6, 3.8, 5.0),
    "1x1 512@14": (1.0, 2.0, 3.5, 4.8), "1x1 1024@7": (1.0, 2.0, 3.8, 6.5), "1x1 600-240@32": (1.0, 1.6, 2.8, 3.0),
    "linear 9216-4096": (1.0, 1.9, 3.5, 6.0),
}  # fmt: skip
COMPRESSIONS = (2, 4, 8, 16)
PASSES = {"forward": 1.0, "forward+backward": 0.8}
SHOWN = ["direct", "direct, block 4", "grouped", "masked", "MKL CSR", "limit"]
NETWORK_METHODS = {
    "training step": ["X, auto", "X, dense kernel", "masked", "grouped"],
    "inference": ["X, for_inference", "X, auto", "dense, for_inference", "masked", "grouped, for_inference"],
}


def read(name: str) -> pd.DataFrame:
    """One of the csv files; "grouped" is the faster of its two layouts."""
    frame = pd.read_csv(HERE / f"{name}.csv")
    keys = [c for c in frame.columns if c in ("machine", "threads", "layer", "network", "pass", "compression")]
    frame["method"] = frame["method"].str.replace("grouped channels_last", "grouped")
    return frame.sort_values("ms").drop_duplicates([*keys, "method"]).sort_index()


def layers_table(layers: pd.DataFrame, threads: int) -> list[str]:
    """Markdown: measured ratio, what was asked, and the machine's limit."""
    cells = layers[layers["threads"] == threads].set_index(["layer", "pass", "compression", "method"])["ratio"]
    lines = ["| layer | pass | " + " | ".join(f"C={c}" for c in COMPRESSIONS) + " |", "|---|---|" + "---|" * 4]
    for layer, targets in TARGETS.items():
        for what, share in PASSES.items():
            row = []
            for c, target in zip(COMPRESSIONS, targets, strict=True):
                got, limit = (cells[layer, what, c, method] for method in ("direct", "limit"))
                met = got >= share * target
                row.append(f"{'**' * met}{got:.2f}{'**' * met} ({share * target:.1f}; {limit:.1f})")
            lines.append(f"| {layer} | {what} | " + " | ".join(row) + " |")
    return lines


def compared_table(layers: pd.DataFrame, threads: int) -> list[str]:
    """Markdown: forward ratios of what X-Conv is compared with."""
    mine = layers[(layers["threads"] == threads) & (layers["pass"] == "forward")]
    cells = mine.set_index(["layer", "compression", "method"])["ratio"]
    methods = ["direct", "auto", "direct, block 4", "grouped", "masked", "MKL CSR"]
    lines = ["| layer | C | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for layer in TARGETS:
        for c in COMPRESSIONS:
            said = (f"{cells[layer, c, m]:.2f}" if (layer, c, m) in cells.index else "-" for m in methods)
            lines.append(f"| {layer} | {c} | " + " | ".join(said) + " |")
    return lines


def networks_table(networks: pd.DataFrame) -> list[str]:
    """Markdown: ratios to dense and to masked, with quartiles."""
    lines = [
        "| network | batch | threads | pass | method | ms | times dense | times masked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, row in networks.iterrows():
        if row["method"] not in NETWORK_METHODS[row["pass"]]:
            continue
        dense, masked = (
            f"{row[f'to_{b}']:.2f} ({row[f'to_{b}_low']:.2f}-{row[f'to_{b}_high']:.2f})" for b in ("dense", "masked")
        )
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['threads']} | {row['pass']} | {row['method']} | {row['ms']:.0f} | {dense} | {masked} |"
        )
    return lines


def memory_table(memory: pd.DataFrame) -> list[str]:
    """Markdown."""
    lines = [
        "| network | method | parameters | parameters + gradients + momenta, MB | graph or mask and norms, MB | a step's peak, MB |",
        "|---|---|---|---|---|---|",
    ]
    for _, row in memory.iterrows():
        lines.append(
            f"| {row['network']} | {row['method']} | {row['parameters']:,} | {row['state_mb']:.1f} | {row['buffers_mb']:.1f} | {row['step_peak_mb']:.0f} |"
        )
    return lines


def draw_layers(layers: pd.DataFrame) -> None:
    """benchmarks/layers.png: ratio to dense against C, a panel for each layer and pass; one thread."""
    shown = layers[(layers["threads"] == 1) & layers["method"].isin(SHOWN)]
    sns.set_theme(style="whitegrid", context="paper")
    grid = sns.relplot(
        shown, x="compression", y="ratio", hue="method", style="method", hue_order=SHOWN, style_order=SHOWN, kind="line",
        markers=True, dashes={m: (2, 2) if m == "limit" else "" for m in SHOWN}, row="pass", col="layer",
        col_order=list(TARGETS), height=2.1, aspect=0.85,
    )  # fmt: skip
    grid.set(xscale="log", yscale="log", xticks=COMPRESSIONS, yticks=(0.1, 0.3, 1, 3, 10), ylim=(0.05, 40))
    grid.set(xticklabels=COMPRESSIONS, yticklabels=("0.1", "0.3", "1", "3", "10"))
    grid.set_titles("{col_name}\n{row_name}").set_axis_labels("compression C", "times as fast as dense")
    for axes in grid.axes.flat:
        axes.axhline(1, color="black", linewidth=0.8)
    machine = shown["machine"].iloc[0]
    grid.figure.suptitle(
        f"X-Conv and X-Linear against dense, fp32, one thread of {machine}; medians of {shown['n'].max():.0f} rounds",
        y=1.03,
    )
    grid.figure.savefig(HERE / "layers.png", dpi=130, bbox_inches="tight")
    plt.close(grid.figure)


def draw_networks(networks: pd.DataFrame) -> None:
    """benchmarks/networks.png: ratio to the dense twin; one thread, quartiles as whiskers."""
    shown = networks[networks["threads"] == 1]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    names = list(dict.fromkeys(shown["network"]))
    for axes, (what, methods) in zip(panels, NETWORK_METHODS.items(), strict=True):
        mine = shown[shown["pass"] == what]
        present = [m for m in methods if m in set(mine["method"])]
        for i, method in enumerate(present):
            rows = mine[mine["method"] == method].set_index("network")
            places = [names.index(n) + (i - len(present) / 2 + 0.5) * 0.8 / len(present) for n in rows.index]
            spread = [rows["to_dense"] - rows["to_dense_low"], rows["to_dense_high"] - rows["to_dense"]]
            axes.barh(
                places, rows["to_dense"], 0.8 / len(present), xerr=spread, label=method, error_kw={"linewidth": 0.7}
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(what)
        axes.set_xlabel("times as fast as the dense network")
        axes.set_yticks(range(len(names)), names)
        axes.legend(fontsize=7, loc="lower right")
    panels[0].invert_yaxis()
    figure.suptitle(f"Whole networks, fp32, one thread of {shown['machine'].iloc[0]}")
    figure.tight_layout()
    figure.savefig(HERE / "networks.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Write."""
    layers, networks, memory = read("layers"), read("networks"), pd.read_csv(HERE / "memory.csv")
    peaks = layers[layers["layer"].isna()]
    layers = layers[layers["layer"].notna()]
    machine = layers["machine"].iloc[0]
    rates = "; ".join(f"{row['method']} {row['ratio']:.1f} ({row['threads']} threads)" for _, row in peaks.iterrows())
    parts = [
        "# What the kernels reach", "",
        f"Written by `make bench` (benchmarks/report.py) from the csv files beside it. Machine: {machine}; {rates}.",
        "All ratios are times in one interleaved run, dense = the faster of NCHW and channels_last; medians.", "",
    ]  # fmt: skip
    for threads in sorted(layers["threads"].unique()):
        parts += [f"## Layers, {threads} thread{'s' * (threads > 1)}", ""]
        parts += ["Times as fast as dense (asked for; the limit that this machine's peak sets). Bold: reached.", ""]
        parts += [*layers_table(layers, threads), ""]
    parts += ["## Compared, forward, 1 thread", "", *compared_table(layers, 1), "", "![layers](layers.png)", ""]
    parts += [
        "## Networks",
        "",
        "In brackets the quartiles.",
        "",
        *networks_table(networks),
        "",
        "![networks](networks.png)",
        "",
    ]
    parts += ["## Memory of training", "", *memory_table(memory), ""]
    (HERE / "kernels.md").write_text("\n".join(parts))
    draw_layers(layers)
    draw_networks(networks)
    print(f"written: {HERE / 'kernels.md'}, layers.png, networks.png")


if __name__ == "__main__":
    main()
