"""What sections 3.3, 3.4 and 5.4 of the paper say of graphs, measured. Needs no data, no training and no results."""
