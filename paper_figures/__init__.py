"""Tables and figures from result files, Figs. 1 and 2 from graphs: `python -m paper_figures --help`. Without torch."""
