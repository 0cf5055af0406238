# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The theory, measured
#
# The paper argues for expander graphs with statements about graphs: every output is sensitive to every input after
# O(log n) layers (Theorem 1), edges are spread evenly over all sets (Theorem 2), and a randomly drawn graph is hardly
# ever a bad one (section 5.4). Here each is measured, on the graphs themselves: nothing is trained.
#
# The figures are drawn from `docs/theory/measured/*.csv`, which `make theory` makes again in some 20 minutes of one
# core. `dvc repro` measures and draws a small sample of the same.
#
# ## Theorem 1: sensitivity
#
# A stack of layers, each with a graph of its own. Its outputs *see* an input if a path leads there; on a real network
# that is where the Jacobian is not zero, which `tests/xnets/test_sensitivity.py` checks on every X-Net of the paper.

# %%
# %matplotlib inline
import math

import pandas as pd
from IPython.display import display

from paper_figures.theory import constructions, gaps, mixing, sensitivity
from xnets.graphs import sample_graph
from xnets.graphs.measures import dead_inputs, sigma_ratio
from xnets.graphs.measures import sensitivity as seen_shares

lines = []
for name in ("random", "matchings", "grouped-shuffled", "grouped"):
    stack = [sample_graph(name, 256, 256, 16, seed) for seed in range(6)]
    shares = [f"{math.floor(100 * share)} %" for share in seen_shares(stack).least]
    lines.append({"graph": name} | {f"after {depth}": share for depth, share in enumerate(shares, 1)})
table = pd.DataFrame(lines).set_index("graph")
display(table)

# %% [markdown]
# The table says which share of 256 inputs the worst-off output sees, D = 16. Groups stay within their group for ever.
# Now the same up to a million channels:

# %%
figure, stacks = sensitivity.draw()
display(figure)

# %% [markdown]
# How to read it:
# - The theorem holds, with a small constant: an output sees at most D^t inputs after t layers, and graphs that are
#   D-regular on *both* sides need a few layers more than that.
# - O(log n) is not what sets expanders apart. Grouped layers with ShuffleNet's shuffle need the fewest layers there can
#   be, although their gap is zero: a gap is a property of one layer, connectivity here one of the stack.
# - What the gap alone proves (dotted) is several times what is needed, and nothing at D = 2.
# - The paper's own sampling is D-regular on the outputs only, which is not what the theorem assumes. Some inputs are
#   drawn by nobody, or only by channels that nobody draws, and no depth brings them back (c).
#
# ## Theorem 2: mixing
#
# "The number of edges between S and T is ≈ D|S||T|/n." The expander mixing lemma says how far it may be off.

# %%
figure, sets = mixing.draw()
display(figure)

# %% [markdown]
# How to read it:
# - For *random* sets the statement is true of every graph, of groups too: they tell nothing about connectivity.
# - Against sets that were searched for, the bound is 1.7 to 3.6 times what can be found, and for small
#   sets it is more than the number expected: nothing is promised of them, and rightly.
# - Groups have pairs of large sets without any edge.
#
# ## The gap, and how good it could be

# %%
figure, graphs = constructions.draw()
display(figure)

# %% [markdown]
# How to read it:
# - At the paper's sizes, where n is only C times D, the paper's random graphs are already *below* a Ramanujan graph's
#   ratio: that is a bound for n ≫ D. Explicit expanders add little; Paley graphs most.
# - Sharing one list of inputs between a block of outputs, as fast kernels like, costs gap.
#
# ## Section 5.4: is there a danger of drawing a bad graph?

# %%
figure, shapes = gaps.draw()
display(figure)

# %% [markdown]
# How to read it:
# - Each shape (n_in, n_out, D) of the paper's X-Nets once. The drawn graphs of nearly all shapes hardly differ: the
#   paper's conclusion is right there. The exceptions are small degrees, above all 32 → 64 with D = 2, the first sparse
#   layer of X-MobileNet-0.5-16, where a graph with hardly any gap is drawn now and then.
# - The theorem it cites does not say so. Vadhan's Theorem 4.4 is about expansion of small sets, up to n / (e³D⁴)
#   outputs, with probability at least 1/2. For every shape of the paper that is less than one output
#   (`vadhan_outputs` below). And |N(S)| ≈ D|S| cannot be where D is n / 2.
# - What can be proved of the gap is the matrix Chernoff bound (dashed; `xnets.graphs.measures.tails`). It falls fast,
#   but far from where the graphs are, and at large compression it proves nothing.
# - Dead inputs (c) are the price of drawing by outputs: a share of about exp(-mean fan-out) feeds nothing. In
#   X-DenseNet-BC-80-40-200 it is one input in twelve of each 3x3 layer.

# %%
display(
    shapes[["n_in", "n_out", "degree", "graphs", "gap_min", "gap_median", "gap_max", "bound_gap", "vadhan_outputs"]]
    .sort_values("gap_min")
    .head(12)
)

# %% [markdown]
# Any layer can be looked at in the same way, here or with `xnets graph measure` and `xnets graph compare`:

# %%
graph = sample_graph("random", 64, 64, 4, seed=0)
display(pd.DataFrame({"sigma2 / sigma1": [sigma_ratio(graph)], "dead inputs": [len(dead_inputs(graph))]}))
