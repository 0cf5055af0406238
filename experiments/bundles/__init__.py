"""Runs as one file, to bring them from the store of one machine into that of another: `xnets store`."""
