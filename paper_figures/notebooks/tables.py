# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tables 1 to 5
#
# The paper's columns as printed; beside them the authors' own logs, our counts, and our runs at the scale of
# `params.yaml`, which the heading names. `python -m paper_figures tables` writes the same to `results/<scale>/tables/`,
# as .csv (every number in full), .md and .tex.
#
# How to read them:
# - Nearly all of the paper's accuracies are of the best test epoch, picked on the test set. Ours are of the last epoch;
#   the best one stands beside it for comparison.
# - `mean ± sd [95 % interval] (runs)`. The interval is Student's, and with two runs it is wide: that is not a mistake.
# - A FLOP is 2 per multiply-add in Table 1, and a multiply-add (MAC) elsewhere.
# - Counts are of the full-size network, also where a smaller one was trained.

# %%
from IPython.display import Markdown, display

from paper_figures.project import enter_project
from paper_figures.table_files import to_markdown
from paper_figures.tables import build_tables

for table in build_tables(enter_project()):
    display(Markdown(to_markdown(table)))
