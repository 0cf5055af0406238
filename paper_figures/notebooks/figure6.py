# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 6: wider and deeper X-DenseNet-BCs on CIFAR-100
#
# One line for each base network (depth-growth), one point for each compression C. The paper's question: does a bigger
# network, compressed harder, beat a smaller one at the same number of parameters?
#
# How to read it:
# - Compare points at the same x. At equal numbers of parameters the authors' wider 40-200 lies *below* 40-100, and
#   70-60 and 58-60 cross: their own logs do not support what the paper says of them.
# - Parameters are those of the network that was trained. All of 58-60, and 70-60 at C = 16, were trained with dense
#   transition layers: two architectures in one curve, and why X-16 of 70-60 has more parameters than its X-8.
# - The authors' accuracies are of the best test epoch in their logs, one run each. The logs of 40-200 dense, X-4, X-10
#   and X-20 stop after 241 or 242 of 300 epochs.
#
# Our panel is of the scale in `params.yaml`, and says so. At scale `demo` it is of handwritten digits and of narrowed
# networks: it shows that the pipeline works, and cannot be compared with the authors' panel. Its x values are still
# those of the full-size network. The y value is the mean over runs of the accuracy after the *last* epoch. Bars are
# 95 % Student-t intervals of that mean; a single run has none, and those of two runs can be so wide that the panel
# shows the runs' range instead, and says so. The test set alone makes an accuracy uncertain by the standard error below
# the panel: points closer than that are not known to differ.

# %%
# %matplotlib inline
from IPython.display import display

from paper_figures import figure6
from paper_figures.project import enter_project

settings = enter_project()
figure, points = figure6.draw(settings)
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 6` writes them to `results/<scale>/figures/figure6.csv`:

# %%
display(points)
