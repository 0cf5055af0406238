# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 5: ResNet against X-ResNet on ImageNet
#
# How to read it:
# - The unit is a FLOP of which a multiply-add has two, as in Table 1; everywhere else the paper counts multiply-adds.
# - The paper's cost of an X-ResNet is the dense network's divided by 2. The authors' code and logs leave the shortcut
#   convolutions dense, so what they trained costs more; the dotted line leads to the printed cost.
# - The authors' accuracies are of the best test epoch, one run each. The logs of ResNet-34 and X-ResNet-2-34 stop after
#   76 and 78 of 90 epochs; ResNet-101 and X-ResNet-2-101 have no log.
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

from paper_figures import figure5
from paper_figures.project import enter_project

settings = enter_project()
figure, points = figure5.draw(settings)
display(figure)

# %% [markdown]
# The data of the figure, as `python -m paper_figures figure 5` writes them to `results/<scale>/figures/figure5.csv`:

# %%
display(points)
