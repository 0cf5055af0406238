# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 2: the fast algorithm of an X-Conv layer
#
# An output channel $v$ needs its own $D$ input channels $N(v)$ and nothing else. So the layer stores a kernel of $D$
# slices for each output, selects the $D$ channels, and convolves: no dense weight, no mask of zeros (Algorithm 1).
#
# How to read it:
# - The graph, the images and the weights are a real small layer, and the outputs on the right are what it computes.
# - Channels count from 0 here and from 1 in the paper.
# - The paper's caption says that channels are drawn *with* replacement, its section 4.2 and the authors' code say
#   *without*. Without is what we draw, so $N(v)$ has $D$ different channels.

# %%
# %matplotlib inline
from IPython.display import display

from paper_figures import figure2

figure, kernels = figure2.draw()
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 2` writes them to `results/<scale>/figures/figure2.csv`:

# %%
display(kernels)
