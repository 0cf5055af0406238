# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 3: groups against expanders on MobileNet-0.5
#
# Groups and expanders at the same compression cost the same; they differ in connectivity alone. The authors find the
# expander better by 0.8 points at C = 2 and by 4 to 6 points beyond.
#
# How to read it:
# - The unit is the multiply-add (MAC), which the paper calls a FLOP here; in Table 1 and Fig. 5 a FLOP is half of one.
# - The network in the authors' log is wider than MobileNet-0.5 (176.5M MACs, not 150M). Their points stand at the cost
#   of what they trained; the dotted line leads to the cost that the paper prints.
# - Their accuracies are of the best test epoch, picked on the test set; means of 2 runs (Table 5).
# - Their groups and expanders started from different initial weights; ours start from the same rule.
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

from paper_figures import figure3
from paper_figures.project import enter_project

settings = enter_project()
figure, points = figure3.draw(settings)
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 3` writes them to `results/<scale>/figures/figure3.csv`:

# %%
display(points)
