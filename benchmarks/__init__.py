"""What things cost on a machine. Records, not tests.

make bench          layers, choice, networks and memory; report draws them and writes kernels.md
make bench-train    train
make bench-demo     demo
make bench-slurm    slurm
make theory         graphs, after experiments.theory

By hand, on a GPU: `python benchmarks/gpu_kernels.py`.

layers, choice, networks and train run with the memory settings of the pipeline's runs, which keep freed memory
(xnets.machine.MALLOC); memory, graphs and gpu_kernels do not.
"""
