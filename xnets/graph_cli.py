"""`xnets graph`: draw graphs, measure them, compare constructions."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xnets.errors import XNetsError

if TYPE_CHECKING:
    from xnets.graphs.bipartite import BipartiteGraph

DEPTH = 20  # layers that `compare` stacks at most


def add_graph(commands: argparse._SubParsersAction) -> None:
    """Add `xnets graph sample|measure|compare|names` to a command's subparsers."""
    parser = commands.add_parser("graph", help="draw, measure and compare the graphs of layers")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    names = actions.add_parser("names", help="list the constructions there are")
    names.set_defaults(run=_names)

    sample = actions.add_parser(
        "sample",
        help="draw a graph and save it",
        description="E.g. xnets graph sample ramanujan --inputs 512 --compression 8 --file graph.npz",
    )
    sample.add_argument("name", help="a construction; `xnets graph names` lists them")
    _add_layer(sample, required=True)
    sample.add_argument("--file", help="where to save it (.npz), for xnets.graphs.load_graph; printed only if left out")
    sample.set_defaults(run=_sample)

    measure = actions.add_parser(
        "measure",
        help="all measures of one graph",
        description="Of a saved graph, or of one drawn here: xnets graph measure random --inputs 512 --compression 8",
    )
    measure.add_argument("graph", help="a .npz file of `xnets graph sample`, or a construction")
    _add_layer(measure, required=False)
    measure.add_argument("--json", action="store_true", help="print one JSON object")
    measure.set_defaults(run=_measure)

    compare = actions.add_parser(
        "compare",
        help="several constructions side by side",
        description="Means over seeds. layers: how many such layers, each drawn anew, until every output sees every "
        f"input (square layers only; - if not within {DEPTH}). From some thousands of channels on, diameter and layers "
        "are taken from a sample of them and are lower bounds.",
    )
    compare.add_argument("name", nargs="*", help="constructions; all unless given")
    _add_layer(compare, required=True)
    compare.add_argument("--seeds", type=int, default=1, help="graphs of each, from --seed on (default: 1)")
    compare.add_argument("--json", action="store_true", help="print one JSON object a line")
    compare.set_defaults(run=_compare)


def _add_layer(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--inputs", type=int, required=required, help="input channels of the layer")
    parser.add_argument("--outputs", type=int, help="output channels; as many as inputs unless given")
    degree = parser.add_mutually_exclusive_group(required=required)
    degree.add_argument("--degree", type=int, help="D, the inputs of an output (random-by-input: outputs of an input)")
    degree.add_argument("--compression", type=int, help="C: D = floor(inputs / C) (random-by-input: of the outputs)")
    parser.add_argument("--seed", type=int, default=0, help="graph seed (default: 0)")


def _drawn(name: str, args: argparse.Namespace, seed: int) -> "BipartiteGraph":
    from xnets.graphs import find_construction, sample_graph

    n_out = args.inputs if args.outputs is None else args.outputs
    by_input = find_construction(name).drawn_by == "input"  # the degree is an input's, as in a layer
    most, side = (n_out, "outputs") if by_input else (args.inputs, "inputs")
    if args.compression is not None and not 1 <= args.compression <= most:
        raise XNetsError(f"--compression must lie between 1 and the {most} {side}, not {args.compression}.")
    degree = args.degree if args.compression is None else most // args.compression
    try:
        return sample_graph(name, args.inputs, n_out, degree, seed)
    except MemoryError:
        raise XNetsError(f"A graph of {args.inputs} inputs and {n_out} outputs does not fit in memory.") from None


def _names(args: argparse.Namespace) -> None:
    from xnets.graphs import CONSTRUCTIONS

    for name, construction in CONSTRUCTIONS.items():
        print(f"{name:26}{construction.about}{'' if construction.seeded else '; the same for every seed'}")


def _sample(args: argparse.Namespace) -> None:
    from xnets.graphs import save_graph

    graph = _drawn(args.name, args, args.seed)
    if args.file is not None:
        save_graph(graph, args.file)
    where = "" if args.file is None else f" in {args.file}"
    print(f"{args.name}, seed {args.seed}: {graph.n_in} -> {graph.n_out}, {graph.n_edges} edges, {graph.hash}{where}")


def _measure(args: argparse.Namespace) -> None:
    from xnets.graphs import CONSTRUCTIONS, load_graph
    from xnets.graphs.measures import summary

    layer = args.inputs is not None and (args.degree is not None or args.compression is not None)
    if args.graph in CONSTRUCTIONS and not layer:
        raise XNetsError(f"{args.graph} is drawn for a layer: add --inputs and --degree or --compression.")
    sizes = (args.inputs, args.outputs, args.degree, args.compression)
    if args.graph not in CONSTRUCTIONS and Path(args.graph).exists() and sizes != (None,) * 4:
        raise XNetsError(f"{args.graph} is a file, which has its own sizes: leave out --inputs and what goes with it.")
    if not layer and not Path(args.graph).exists():
        names = ", ".join(CONSTRUCTIONS)
        raise XNetsError(f"{args.graph} is neither a graph file nor a construction; there are {names}.")
    graph = _drawn(args.graph, args, args.seed) if layer else load_graph(args.graph)
    found = summary(graph, args.seed)
    if args.json:
        print(json.dumps({"hash": graph.hash} | {name: measure.value for name, measure in found.items()}))
        return
    for name, measure in found.items():
        print(f"{name:24}{_shown(measure.value):>12}   {measure.about}")


def _compare(args: argparse.Namespace) -> None:
    from xnets.graphs import CONSTRUCTIONS, find_construction
    from xnets.graphs.measures import dead_inputs, least_ratio, path_lengths, ramanujan_ratio, sample_for, sigma_ratio

    if args.seeds < 1:
        raise XNetsError(f"--seeds must be at least 1, not {args.seeds}.")
    names = args.name or list(CONSTRUCTIONS)
    sizes: tuple[int, ...] = ()  # of the first graph drawn
    for name in names:
        find_construction(name)
    header = f"{'graph':26}{'edges':>10}{'sigma ratio':>12}{'normalised':>12}{'fan-out':>12}{'dead inputs':>13}"
    if not args.json:
        print(f"{header}{'diameter':>10}{'layers':>8}")
    for name in names:
        seeds = range(args.seed, args.seed + args.seeds)
        try:
            graphs = [_drawn(name, args, seed) for seed in seeds]
        except XNetsError as error:
            if len(names) == 1:
                raise
            print(json.dumps({"graph": name, "refused": str(error)}) if args.json else f"{name:26}  {error}")
            continue
        sizes = sizes or (graphs[0].n_in, graphs[0].n_out, graphs[0].n_edges)
        row: dict[str, Any] = {
            "edges": graphs[0].n_edges,
            "sigma_ratio": _mean(sigma_ratio(graph) for graph in graphs),
            "sigma_ratio_normalised": _mean(sigma_ratio(graph, normalised=True) for graph in graphs),
            "fan_out": [min(int(g.out_degrees.min()) for g in graphs), max(int(g.out_degrees.max()) for g in graphs)],
            "dead_inputs": _mean(len(dead_inputs(graph)) for graph in graphs),
            "diameter": path_lengths(graphs[:1], sample_for(graphs[0]), args.seed).diameter,
            "layers": _layers(name, args),
        }
        if args.json:
            print(json.dumps({"graph": name, "seeds": args.seeds} | row))
        else:
            edges, ratio, normalised, fan_out, dead, *others = map(_shown, row.values())
            print(
                f"{name:26}{edges:>10}{ratio:>12}{normalised:>12}{fan_out:>12}{dead:>13}{others[0]:>10}{others[1]:>8}"
            )
    if not sizes:
        return
    bounds = {"ramanujan_ratio": ramanujan_ratio(*sizes), "least_ratio": least_ratio(*sizes)}
    if args.json:
        print(json.dumps(bounds))
    else:
        print(f"A Ramanujan graph has a sigma ratio of {bounds['ramanujan_ratio']:.4f} where n >> D;", end=" ")
        print(f"no regular graph with these {sizes[2]} edges is below {bounds['least_ratio']:.4f}.")


def _layers(name: str, args: argparse.Namespace) -> int | None:
    """Such layers until every output sees every input; drawn a few at a time, since few are mostly enough."""
    from xnets.graphs.measures import layers_until_all, sample_for

    stack: list[BipartiteGraph] = []
    for depth in (4, DEPTH):
        stack += [_drawn(name, args, args.seed + i) for i in range(len(stack), depth)]
        if stack[0].n_in != stack[0].n_out:
            return None
        layers = layers_until_all(stack, sample_for(stack[0]), args.seed)
        if layers is not None:
            return layers
    return None


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _shown(value: Any) -> str:
    """As a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, (tuple, list)):
        return "-".join(map(str, value))
    return str(int(value)) if float(value).is_integer() and not 0 < abs(value) < 1 else f"{value:.4f}"
