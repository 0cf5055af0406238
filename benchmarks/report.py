"""`make bench`'s last step: benchmarks/kernels.md and the figures from the csv files beside this file.

A section for each machine that the files hold rows of, the one whose layers were measured last before the others.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks import tables
from benchmarks.drawings import draw_layers, draw_networks
from benchmarks.networks import BATCHES

HERE = Path(__file__).parent
INTRODUCTION = """# What the kernels reach

Written by `make bench` from the csv files beside it. All ratios are of times in one interleaved run, medians over its
rounds, each against its own round; "dense" is the faster of NCHW and channels_last.
"""
LAYERS = """## How to read the tables of layers

How many times as fast as dense, and in brackets:

- **asked**: what this project set out to reach, from prototypes of these kernels on a machine with AVX-512; of both
  passes together 0.8 of the forward pass. In bold: reached.
- **peak**: what the peak of this machine sets to nine multiply-adds for each pixel and edge (one of 1x1).
- **moved**: about what is left of it with the data moved: one edge for each output as long as it takes our kernels, the
  other edges at the peak. An estimate, which some layers beat.

Layers that go by Winograd's algorithm need fewer multiply-adds and are held to neither limit. Each cell:
got (asked; peak, moved).
"""
GROUPS = "How many times as fast as group convolutions X-Conv is; of MobileNets X by its fastest method."
CHOICE = "`auto` in NCHW against the faster of dense and masked."
NETWORKS = (
    "In brackets the quartiles, of four rounds or more. `limit`: the X-Net's multiply-adds, nine for each pixel and "
    "edge of a 3x3 layer, at this machine's peak, and in training all else (norms, pooling, the loss, the update, "
    "Python) as it was measured in the X-Net's fastest form. Winograd's algorithm needs fewer, and is not held to it."
)
MEMORY = (
    "By how much two training steps raise the memory of a fresh process, by the largest it had at a time, and what of "
    "it the network itself and what kernels keep of its graphs take. With machine code in the cache."
)


class Measurements(NamedTuple):
    """The rows of one machine."""

    machine: str
    rates: str  # its peak and memory, in words
    layers: pd.DataFrame
    choice: pd.DataFrame
    networks: pd.DataFrame
    memory: pd.DataFrame

    @property
    def vectors(self) -> str:
        """The machine's, as a part of a file's name."""
        return re.sub(r"\W", "", self.machine.rpartition(", ")[2]).lower()


def committed() -> list[Measurements]:
    """As they lie beside this file."""
    files = {name: pd.read_csv(HERE / f"{name}.csv") for name in ("layers", "choice", "networks", "memory")}
    machines = files["layers"]["machine"].drop_duplicates(keep="last")[::-1]
    return [_of_machine(machine, files) for machine in machines]


def _of_machine(machine: str, files: dict[str, pd.DataFrame]) -> Measurements:
    layers, choice, networks, memory = (frame[frame["machine"] == machine] for frame in files.values())
    peaks, layers = layers[layers["layer"].isna()], layers[layers["layer"].notna()]
    rates = "; ".join(f"{row['method']} {row['ratio']:.1f} ({row['threads']} threads)" for _, row in peaks.iterrows())
    frames = [by_network(frame) for frame in (choice, of_faster_layout(networks), memory)]
    return Measurements(machine, rates, of_faster_layout(layers), *frames)


def of_faster_layout(frame: pd.DataFrame) -> pd.DataFrame:
    """Of the same in two layouts the faster."""
    keys = [c for c in frame.columns if c in ("threads", "layer", "network", "pass", "compression")]
    method = frame["method"].str.replace(r"^(dense|X, auto|grouped|.+, for_training) channels_last$", r"\1", regex=True)
    return frame.assign(method=method).sort_values("ms").drop_duplicates([*keys, "method"]).sort_index()


def by_network(frame: pd.DataFrame) -> pd.DataFrame:
    """In the order of BATCHES, and of what was measured within."""
    places = {name: i for i, name in enumerate(BATCHES)}
    keys = [c for c in ("threads", "network") if c in frame.columns]
    return frame.sort_values(keys, key=lambda c: c.map(places) if c.name == "network" else c, kind="stable")


def sources(measured: Measurements) -> list[str]:
    """Markdown: which commits the rows are of, and over how many rounds."""
    rows = []
    for name in ("layers", "choice", "networks", "memory"):
        frame = getattr(measured, name)
        for commit, mine in frame.groupby("commit", sort=False):
            threads = ", ".join(map(str, sorted(mine["threads"].unique()))) if "threads" in mine else "1"
            rounds = "-".join(str(int(n)) for n in sorted({mine["n"].min(), mine["n"].max()})) if "n" in mine else "1"
            rows.append([f"{name}.csv", commit, _which(mine, frame), threads, rounds])
    return tables.markdown(["file", "commit", "of", "threads", "rounds"], rows)


def _which(mine: pd.DataFrame, frame: pd.DataFrame) -> str:
    kind = "layer" if "compression" in frame else "network"
    names = list(mine[kind].unique())
    return f"all {len(names)} {kind}s" if set(names) == set(frame[kind]) and len(names) > 1 else ", ".join(names)


def section(measured: Measurements) -> list[str]:
    """Markdown: all that was measured on one machine."""
    layers, networks, choice, vectors = measured.layers, measured.networks, measured.choice, measured.vectors
    parts = [f"## {measured.machine}", "", f"{measured.rates}.", "", *sources(measured), ""]
    for threads in sorted(layers["threads"].unique()):
        parts += [f"### Layers, {threads} thread{'s' if threads > 1 else ''}", ""]
        parts += [*tables.layers_table(layers, threads), "", tables.shortfalls(layers, threads), ""]
    parts += [f"![layers](layers_{vectors}.png)", "", "### Layers compared, forward, 1 thread", ""]
    parts += [*tables.compared_table(layers, 1), "", "### Against group convolutions", "", GROUPS, ""]
    rows = tables.layers_against_groups(layers) + tables.mobilenets_against_groups(networks)
    parts += [*tables.against_groups(rows), "", tables.to_be_level(layers), ""]
    parts += ["### The automatic choice, layer by layer", "", CHOICE, "", *tables.choice_table(choice), ""]
    parts += [tables.slower(choice), "", "### Networks", "", NETWORKS, "", *tables.networks_table(networks), ""]
    parts += [f"![networks](networks_{vectors}.png)", ""]
    if len(measured.memory):
        parts += ["### Memory of training", "", MEMORY, "", *tables.memory_table(measured.memory), ""]
    return parts


def text(machines: list[Measurements]) -> str:
    """kernels.md. Conditions (how quiet a machine was) and reasons are written by who measured."""
    parts = [INTRODUCTION, (HERE / "conditions.md").read_text(), LAYERS]
    for measured in machines:
        parts += section(measured)
    return "\n".join([*parts, (HERE / "reasons.md").read_text()])


def main() -> None:
    """Write."""
    machines = committed()
    (HERE / "kernels.md").write_text(text(machines))
    for measured in machines:
        draw_layers(measured.layers, list(tables.TARGETS), HERE / f"layers_{measured.vectors}.png")
        draw_networks(measured.networks, HERE / f"networks_{measured.vectors}.png")
    print(f"written: {HERE / 'kernels.md'}, and of each machine layers_*.png and networks_*.png")


if __name__ == "__main__":
    main()
