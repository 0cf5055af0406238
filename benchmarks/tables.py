"""The tables of kernels.md, as Markdown, from the rows of one machine."""

import pandas as pd

from benchmarks.drawings import NETWORK_METHODS
from benchmarks.layers import COMPRESSIONS

# What was asked of the forward pass, at C = 2, 4, 8, 16, and which share of it of both passes together.
TARGETS = {
    "3x3 256@14": (1.6, 3.2, 5.5, 8.3), "3x3 512@4": (3.0, 5.4, 9.8, 17), "3x3 240-60@32": (1.5, 2.6, 3.8, 5.0),
    "1x1 512@14": (1.0, 2.0, 3.5, 4.8), "1x1 1024@7": (1.0, 2.0, 3.8, 6.5), "1x1 600-240@32": (1.0, 1.6, 2.8, 3.0),
    "linear 9216-4096": (1.0, 1.9, 3.5, 6.0),
}  # fmt: skip
PASSES = {"forward": 1.0, "forward+backward": 0.8}


def layers_table(layers: pd.DataFrame, threads: int) -> list[str]:
    """Markdown: measured ratio, what was asked, and this machine's two limits; in bold what is reached."""
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
    said = f"{cells['reached'].sum()} of {len(cells)} cells are reached."
    if len(within):
        shares = within["got"] / within["asked"]
        said += f" {len(within)} fall short, at {shares.min():.0%} to {shares.max():.0%} of what was asked."
    if len(beyond):
        shares = beyond["got"] / beyond["moved"]
        said += (
            f" In {len(beyond)}{' others' if len(within) else ''} more was asked than the last limit allows, of which "
            f"they have {shares.min():.0%} to {shares.max():.0%}."
        )
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
    return markdown(["layer or network", "threads", "pass", "groups by", *(f"C={c}" for c in COMPRESSIONS)], rows)


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
    """Markdown: ratios to dense and to masked, with quartiles where there are four rounds or more."""
    rows = []
    for _, row in networks.iterrows():
        if row["method"] in NETWORK_METHODS[row["pass"]]:
            ratios = []
            for baseline in ("dense", "masked"):
                spread = f" ({row[f'to_{baseline}_low']:.2f}-{row[f'to_{baseline}_high']:.2f})"
                steady = row["n"] < 4 or row["method"] in (baseline, "limit")
                ratios.append(f"{row[f'to_{baseline}']:.2f}{'' if steady else spread}")
            names = [row[column] for column in ("network", "batch", "threads", "pass", "method")]
            rows.append([*names, f"{row['ms']:.0f}", *ratios, row["n"]])
    head = ["network", "batch", "threads", "pass", "method", "ms", "times dense", "times masked", "rounds"]
    return markdown(head, rows)


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
    return f"Slower than the faster of the two by more than 5 %, by number of threads: {'; '.join(said)}."


def memory_table(memory: pd.DataFrame) -> list[str]:
    """Markdown."""
    head = [
        "network", "method", "parameters", "with gradients and momenta, MB", "graphs, masks, norms, MB",
        "graphs as kernels sort them, MB", "step, MB",
    ]  # fmt: skip
    columns = ["network", "method", "parameters", "state_mb", "buffers_mb", "tables_mb", "step_peak_mb"]
    return markdown(head, memory[columns].values.tolist())


def markdown(head: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
