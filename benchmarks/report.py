"""`make bench`'s last step: benchmarks/kernels.md and the figures from the csv files beside this file."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.drawings import NETWORK_METHODS, draw_layers, draw_networks
from benchmarks.layers import COMPRESSIONS

HERE = Path(__file__).parent
# What was asked of the forward pass, at C = 2, 4, 8, 16; of both passes together, 0.8 of it.
TARGETS = {
    "3x3 256@14": (1.6, 3.2, 5.5, 8.3), "3x3 512@4": (3.0, 5.4, 9.8, 17), "3x3 240-60@32": (1.5, 2.6, 3.8, 5.0),
    "1x1 512@14": (1.0, 2.0, 3.5, 4.8), "1x1 1024@7": (1.0, 2.0, 3.8, 6.5), "1x1 600-240@32": (1.0, 1.6, 2.8, 3.0),
    "linear 9216-4096": (1.0, 1.9, 3.5, 6.0),
}  # fmt: skip
AVX2 = (
    "Written by `python -m benchmarks.layers --csv benchmarks/layers_avx2.csv` there, and so `choice` and `networks`; "
    "with its own limits, and not as quiet a machine as the other."
)
PASSES = {"forward": 1.0, "forward+backward": 0.8}

LIMIT = (
    "`limit`: the X-Net's multiply-adds, nine for each pixel and edge of a 3x3 layer, at this machine's peak, and in "
    "training all else (norms, pooling, the loss, the update, Python) as it was measured in the X-Net's fastest form. "
    "Winograd's algorithm needs fewer, and is not held to it."
)
HEADING = (
    "Times as fast as dense (asked for; the limit that this machine's peak sets to nine multiply-adds for each pixel "
    "and edge, one of 1x1, and about what is left of it once the data are moved: the other edges at the peak, all else "
    "as long as it takes our kernels with one edge for each output; an estimate, which some layers beat, and which "
    "those that go by Winograd's algorithm are not held to). Bold: reached."
)


class Measurements(NamedTuple):
    """The csv files; those of `avx2` are of a machine without AVX-512."""

    layers: pd.DataFrame
    networks: pd.DataFrame
    choice: pd.DataFrame
    memory: pd.DataFrame
    layers_avx2: pd.DataFrame
    choice_avx2: pd.DataFrame
    networks_avx2: pd.DataFrame


def committed() -> Measurements:
    """As they lie beside this file."""
    choice, memory, choice_avx2 = (pd.read_csv(HERE / f"{name}.csv") for name in ("choice", "memory", "choice_avx2"))
    layers, networks = read("layers"), read("networks")
    return Measurements(layers, networks, choice, memory, read("layers_avx2"), choice_avx2, read("networks_avx2"))


def read(name: str) -> pd.DataFrame:
    """One of the csv files; of the same in two layouts the faster."""
    frame = pd.read_csv(HERE / f"{name}.csv")
    keys = [c for c in frame.columns if c in ("machine", "threads", "layer", "network", "pass", "compression")]
    frame["method"] = frame["method"].str.replace(
        r"^(X, auto|grouped|.+, for_training) channels_last$", r"\1", regex=True
    )
    return frame.sort_values("ms").drop_duplicates([*keys, "method"]).sort_index()


def layers_table(layers: pd.DataFrame, threads: int) -> list[str]:
    """Markdown: measured ratio, what was asked, and the machine's limit."""
    rows = []
    for (layer, what), row in cells_asked_for(layers, threads).groupby(["layer", "pass"], sort=False):
        said = []
        for cell in row.itertuples():
            bold = "**" if cell.reached else ""
            said.append(f"{bold}{cell.got:.2f}{bold} ({cell.asked:.1f}; {cell.limit:.1f}, {cell.moved:.1f})")
        rows.append([layer, what, *said])
    return markdown(["layer", "pass", *(f"C={c}" for c in COMPRESSIONS)], rows)


def cells_asked_for(layers: pd.DataFrame, threads: int) -> pd.DataFrame:
    """A row for each layer, pass and C of the table: got, asked, limit and moved (the limit with the data moved)."""
    ratios = layers[layers["threads"] == threads].set_index(["layer", "pass", "compression", "method"])["ratio"]
    rows = []
    for layer, targets in TARGETS.items():
        for what, share in PASSES.items():
            for c, target in zip(COMPRESSIONS, targets, strict=True):
                got, limit, moved = (ratios[layer, what, c, m] for m in ("direct", "limit", "limit, data moved"))
                rows.append([layer, what, c, got, share * target, limit, moved])
    cells = pd.DataFrame(rows, columns=["layer", "pass", "compression", "got", "asked", "limit", "moved"])
    return cells.assign(reached=cells["got"] >= cells["asked"])


def shortfalls(layers: pd.DataFrame, threads: int) -> str:
    """How many cells are reached, and how near to this machine's limits the others are."""
    cells = cells_asked_for(layers, threads)
    short = cells[~cells["reached"]]
    beyond = short[short["asked"] > short["moved"]]
    within = short[short["asked"] <= short["moved"]]
    said = f"{cells['reached'].sum()} of {len(cells)} are reached."
    for some, what in (
        (beyond, "ask for more than what is left with the data moved, of which they have"),
        (within, "ask for less than that, and have"),
    ):
        if len(some):
            shares = some["got"] / (some["moved"] if some is beyond else some["asked"])
            of = "" if some is beyond else " of what is asked"
            said += f" {len(some)} {what} {shares.min():.0%} to {shares.max():.0%}{of}."
    return said


def compared_table(layers: pd.DataFrame, threads: int) -> list[str]:
    """Markdown: forward ratios of what X-Conv is compared with."""
    mine = layers[(layers["threads"] == threads) & (layers["pass"] == "forward")]
    cells = mine.set_index(["layer", "compression", "method"])["ratio"]
    methods = ["direct", "auto", "direct, block 4", "grouped", "masked", "MKL CSR"]
    rows = []
    for layer in TARGETS:
        for c in COMPRESSIONS:
            said = (f"{cells[layer, c, m]:.2f}" if (layer, c, m) in cells.index else "-" for m in methods)
            rows.append([layer, c, *said])
    return markdown(["layer", "C", *methods], rows)


def layers_against_groups(layers: pd.DataFrame) -> list[list[object]]:
    """Rows: how many times as fast as group convolutions X-Conv is on 3x3 layers."""
    ratios = layers.set_index(["threads", "layer", "pass", "compression", "method"])["ratio"]
    rows = []
    for (threads, layer, what), _ in layers.groupby(["threads", "layer", "pass"], sort=False):
        cells = [(threads, layer, what, c) for c in COMPRESSIONS]
        if layer.startswith("3x3"):
            said = [
                f"{ratios[(*c, 'direct')] / ratios[(*c, 'grouped')]:.2f}" if (*c, "grouped") in ratios else "-"
                for c in cells
            ]
            rows.append([layer, threads, what, "torch's", *said])
    return rows


def mobilenets_against_groups(networks: pd.DataFrame) -> list[list[object]]:
    """Rows: how many times as fast as G-MobileNet X-MobileNet is."""
    mobile, rows = networks[networks["network"].str.startswith("X-MobileNet")], []
    for (threads, what), mine in mobile.groupby(["threads", "pass"], sort=False):
        by = mine.assign(side=mine["method"].str.partition(",")[0]).set_index("network")
        ours = by[by["side"] == "X"].groupby("network")["ms"].min()
        for groups, label in (
            (by[by["method"] == "grouped"], "torch's"),
            (by[by["side"] == "grouped"], "the fastest, ours too"),
        ):
            times = (groups.groupby("network")["ms"].min() / ours).rename(lambda n: int(n.rpartition("-")[2]))
            rows.append(
                [
                    "MobileNet-0.5",
                    threads,
                    what,
                    label,
                    *(f"{times[c]:.2f}" if c in times else "-" for c in COMPRESSIONS),
                ]
            )
    return rows


def against_groups(rows: list[list[object]]) -> list[str]:
    """Markdown."""
    return markdown(["", "threads", "pass", "groups by", *(f"C={c}" for c in COMPRESSIONS)], rows)


def to_be_level(layers: pd.DataFrame) -> str:
    """What it would take to be as fast as groups on 3x3 layers where X-Conv is not."""
    three = layers[layers["layer"].str.startswith("3x3")]
    ratios = three.pivot_table("ratio", ["threads", "layer", "pass", "compression"], "method")
    behind = ratios[ratios["direct"] < ratios["grouped"]]
    needed = behind["grouped"] / behind["limit, data moved"]
    has, cells = behind["direct"] / behind["limit, data moved"], ratios["grouped"].notna().sum()
    if behind.empty:
        return f"Groups are ahead in none of {cells} cells of 3x3 layers."
    return (
        f"In {len(behind)} of {cells} cells of 3x3 layers groups are ahead. To be level X-Conv would need "
        f"{needed.min():.0%} to {needed.max():.0%} (median {needed.median():.0%}) of what is left of the peak with the "
        f"data moved; it has {has.min():.0%} to {has.max():.0%}."
    )


def networks_table(networks: pd.DataFrame) -> list[str]:
    """Markdown: ratios to dense and to masked, with quartiles."""
    rows = []
    for _, row in networks.iterrows():
        if row["method"] in NETWORK_METHODS[row["pass"]]:
            ratios = [
                f"{row[f'to_{b}']:.2f} ({row[f'to_{b}_low']:.2f}-{row[f'to_{b}_high']:.2f})"
                for b in ("dense", "masked")
            ]
            names = [row[column] for column in ("network", "batch", "threads", "pass", "method")]
            rows.append([*names, f"{row['ms']:.0f}", *ratios])
    return markdown(["network", "batch", "threads", "pass", "method", "ms", "times dense", "times masked"], rows)


def choice_table(choice: pd.DataFrame) -> list[str]:
    """Markdown: how much faster "auto" is than the faster of dense and masked, over the layers of each network."""
    rows = []
    for (threads, network, what), mine in choice.groupby(["threads", "network", "pass"], sort=False):
        worst = mine.loc[mine["ratio"].idxmin()]
        chosen = (mine["kernel"] == "direct").sum()
        worst_layer = f"{worst['ratio']:.2f} ({worst['layer']}: {worst['window']}, {worst['auto_ms']:.1f} ms)"
        rows.append([network, threads, what, len(mine), chosen, f"{mine['ratio'].median():.2f}", worst_layer])
    return markdown(["network", "threads", "pass", "distinct layers", "by direct", "median ratio", "worst layer"], rows)


def slower(choice: pd.DataFrame) -> str:
    """In how many cells "auto" is not what was asked for."""
    said = []
    for threads, mine in choice.groupby("threads"):
        some = mine[mine["ratio"] < 0.95]
        worst = f", the worst of them {some['ratio'].min():.2f} times as fast" if len(some) else ""
        said.append(f"with {threads} in {len(some)} of {len(mine)}{worst}")
    return f"Slower by more than 5 %, by number of threads: {'; '.join(said)}."


def memory_table(memory: pd.DataFrame) -> list[str]:
    """Markdown."""
    head = ["network", "method", "parameters", "with gradients and momenta, MB", "graphs, masks, norms, MB",
            "graphs as kernels sort them, MB", "step, MB"]  # fmt: skip
    columns = ["network", "method", "parameters", "state_mb", "buffers_mb", "tables_mb", "step_peak_mb"]
    return markdown(head, memory[columns].values.tolist())


def markdown(head: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def asked_and_reached(layers: pd.DataFrame, heading: str) -> list[str]:
    """Markdown: what was asked of the layers, for each number of threads."""
    parts = []
    for threads in sorted(layers["threads"].unique()):
        parts += [f"{heading}, {threads} thread{'s' if threads > 1 else ''}", ""]
        parts += [HEADING, "", *layers_table(layers, threads), "", shortfalls(layers, threads), ""]
    return parts


def measured_on(layers: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The machine with its rates, in words, and the rows that are of layers."""
    peaks, layers = layers[layers["layer"].isna()], layers[layers["layer"].notna()]
    rates = "; ".join(f"{row['method']} {row['ratio']:.1f} ({row['threads']} threads)" for _, row in peaks.iterrows())
    return f"{layers['machine'].iloc[0]}; {rates}", layers


def text(measured: Measurements) -> str:
    """kernels.md."""
    networks, choice = measured.networks, measured.choice
    machine, layers = measured_on(measured.layers)
    other, avx2 = measured_on(measured.layers_avx2)
    parts = [
        "# What the kernels reach", "",
        f"Written by `make bench` from the csv files beside it, which name the commits they were measured at. Machine: "
        f"{machine}.",
        "All ratios are of times in one interleaved run, medians; dense is the faster of NCHW and channels_last.", "",
        (HERE / "conditions.txt").read_text(),  # written by who measured: how quiet it was, what is missing
    ]  # fmt: skip
    parts += asked_and_reached(layers, "## Layers")
    parts += [
        (HERE / "reasons.md").read_text(),
        "## Compared, forward, 1 thread",
        "",
        *compared_table(layers, 1),
        "",
        "![layers](layers.png)",
        "",
        "## Against group convolutions",
        "",
        "How many times as fast as group convolutions X-Conv is; of MobileNets X by its fastest method.",
        "",
        *against_groups(layers_against_groups(layers) + mobilenets_against_groups(networks)),
        "",
        to_be_level(layers),
        "",
    ]
    parts += ["## The automatic choice, layer by layer", ""]
    parts += ["`auto` in NCHW against the faster of dense and masked.", ""]
    parts += [*choice_table(choice), "", slower(choice), ""]
    parts += ["## Networks", "", f"In brackets the quartiles. {LIMIT}", "", *networks_table(networks), ""]
    parts += ["![networks](networks.png)", "", "## Memory of training", "", *memory_table(measured.memory), ""]
    parts += ["## A machine without AVX-512", "", f"{other}. {AVX2}", "", *asked_and_reached(avx2, "### Layers")]
    rows = layers_against_groups(avx2) + mobilenets_against_groups(measured.networks_avx2)
    parts += [*against_groups(rows), "", to_be_level(avx2), "", "### The automatic choice", ""]
    parts += [*choice_table(measured.choice_avx2), "", slower(measured.choice_avx2), ""]
    parts += ["### Networks", "", *networks_table(measured.networks_avx2), ""]
    return "\n".join(parts)


def main() -> None:
    """Write."""
    measured = committed()
    (HERE / "kernels.md").write_text(text(measured))
    draw_layers(measured.layers[measured.layers["layer"].notna()], list(TARGETS), HERE / "layers.png")
    draw_networks(measured.networks, HERE / "networks.png")
    print(f"written: {HERE / 'kernels.md'}, layers.png, networks.png")


if __name__ == "__main__":
    main()
