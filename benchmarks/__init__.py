"""What things cost on a machine: `make bench`, `make bench-demo`, `make bench-slurm`. Records, not tests."""
