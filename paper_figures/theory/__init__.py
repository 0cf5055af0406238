"""Figures of what sections 3.3, 3.4 and 5.4 of the paper say of graphs, drawn from measured files alone."""
