# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 1: what one output of a sparse network sees
#
# Three networks of three layers with the same number of edges in each layer. Everything that reaches the circled output
# is coloured. With *groups*, an output sees its own group only, however deep the network. *Pruning* by magnitude looks
# at one layer at a time; channels may lose their last edge (marked ⊗). A *random expander* gives every channel the same
# number of inputs, and paths from nearly all of the network's inputs reach each output after a few layers.
#
# How to read it:
# - The graphs are real: sampled by `xnets.graphs` with the seeds below the figure.
# - One draw is one draw. The mean over 200 networks stands below each panel, and the drawn one is close to it.
# - The pruned network starts from random weights, not from trained ones. It is well connected too: what the paper's
#   figure suggests, pruning that falls apart, is not what pruning random weights of this size does.
# - A random expander has equal numbers of inputs for each *output* only. An input that nobody drew feeds nothing.

# %%
# %matplotlib inline
from IPython.display import display

from paper_figures import figure1

figure, edges = figure1.draw()
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 1` writes them to `results/<scale>/figures/figure1.csv`:

# %%
display(edges)
