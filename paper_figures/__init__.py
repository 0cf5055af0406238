"""Figs. 1-6 and Tables 1-5 from results files alone: `python -m paper_figures --help`. Never needs torch."""
