"""The graphs a layer or a model may be asked for by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph
from xnets.graphs.blocks import butterfly, grouped, grouped_shuffled
from xnets.graphs.explicit import cayley, margulis, paley, zig_zag
from xnets.graphs.ramanujan import ramanujan
from xnets.graphs.sampling import random_expander, union_of_matchings
from xnets.graphs.stratified import random_lift, stratified, two_of_four


@dataclass(frozen=True)
class Construction:
    """How graphs of one name are made, and what a layer may rely on before it has made one.

    Args:
        draw: (n_in, n_out, degree, seed) -> graph. Raises XNetsError for sizes, degrees and seeds that cannot be.
        about: what it is, in a few words.
        drawn_by: whose degree D is. "output": every output has D inputs; "input": every input has D outputs;
            "smaller": the authors' released rule, one or the other.
        regular: every output has exactly D edges, whatever the seed.
        may_repeat: an output may have the same input twice.
        seeded: other seeds give other graphs; if not, the seed is recorded and not used.
    """

    draw: Callable[[int, int, int, int], BipartiteGraph]
    about: str
    drawn_by: str = "output"
    regular: bool = True
    may_repeat: bool = False
    seeded: bool = True


CONSTRUCTIONS: dict[str, Construction] = {
    "random": Construction(random_expander, "each output draws D inputs (the paper, section 4.2)"),
    "random-with-replacement": Construction(
        partial(random_expander, replace=True), "as random, and may draw an input again (Fig. 2)", may_repeat=True
    ),
    "random-by-input": Construction(
        partial(random_expander, side="input"), "each input draws D outputs", drawn_by="input", regular=False
    ),
    "random-by-smaller-side": Construction(
        partial(random_expander, side="smaller"), "outputs draw if n_in > n_out, else inputs (the authors' release)",
        drawn_by="smaller", regular=False,
    ),
    "matchings": Construction(union_of_matchings, "a union of random matchings: regular on both sides"),
    "stratified": Construction(stratified, "1:C, one input of each of D runs of consecutive inputs"),
    "two-of-four": Construction(two_of_four, "2:4 at C = 2, else 2:2C: two inputs of each of D / 2 runs"),
    "random-lift": Construction(random_lift, "random lift of a complete bipartite graph: stratified and balanced"),
    "ramanujan": Construction(ramanujan, "Lubotzky-Phillips-Sarnak, on the projective line"),
    "margulis": Construction(margulis, "Margulis-Gabber-Galil, on the torus"),
    "cayley": Construction(cayley, "Cayley graph of Z_n with random generators"),
    "paley": Construction(paley, "Cayley graph of Z_q with power residues"),
    "zig-zag": Construction(zig_zag, "zig-zag product with a complete graph"),
    "grouped": Construction(grouped, "grouped convolution: disconnected blocks", seeded=False),
    "grouped-shuffled": Construction(grouped_shuffled, "groups and ShuffleNet's channel shuffle", seeded=False),
    "butterfly": Construction(butterfly, "flat block butterfly", seeded=False),
}  # fmt: skip


def find_construction(name: str) -> Construction:
    """The construction of that name; raises XNetsError for any other, with the names there are."""
    if name not in CONSTRUCTIONS:
        raise XNetsError(f"Unknown graph {name!r}; there are {', '.join(CONSTRUCTIONS)}.")
    return CONSTRUCTIONS[name]


def sample_graph(construction: str, n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """The graph that `construction`, a name in CONSTRUCTIONS, draws with `seed`."""
    return find_construction(construction).draw(n_in, n_out, degree, seed)
