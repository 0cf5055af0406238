# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 4: DenseNet-BC against X-DenseNet-BC on CIFAR
#
# Labels are D-G (depth, growth rate) and X-C-D-G (C: compression).
#
# How to read it:
# - The unit is the multiply-add (MAC), which the paper calls a FLOP here.
# - The authors' accuracies are of the best test epoch in their logs, one run each; the value of X-2-40-48 on CIFAR-100
#   is from their README. Some logs stop early: the dense 40-60 on CIFAR-10 after 201 of 300 epochs.
# - Two of their X networks (40-24 and 40-36) were trained with dense transition layers, so they cost more than the
#   paper prints; the dotted line leads to the printed cost.
# - On CIFAR-100 the authors' X networks reach the line of the dense ones of depth 40 and do not pass it; those of depth
#   100 are better at equal cost.
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

from paper_figures import figure4
from paper_figures.project import enter_project

settings = enter_project()
figure, points = figure4.draw(settings)
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 4` writes them to `results/<scale>/figures/figure4.csv`:

# %%
display(points)
