"""Memory of training: `make bench`, or python -m benchmarks.memory. Writes benchmarks/memory.csv.

For each network, dense, with the authors' masked layers, and as an X-Net by "auto", as it is and by for_training, all
measured: the bytes of its parameters, gradients and momenta, of its buffers (graphs, masks, norms) and of what kernels
keep of the graphs beside them (tables), and by how much two training steps raise a fresh process's largest resident
set. Blocks of 128 KiB and more, where glibc begins, go back to the system when they are freed, so that it is what the
step needs and not how glibc cuts it up.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.networks import BATCHES
from benchmarks.records import write_rows

if TYPE_CHECKING:
    import torch

CSV = Path(__file__).with_suffix(".csv")
PART = ["network"]  # of the columns, what is measured together
COLUMNS = ["machine", "network", "batch", "method", "parameters", "state_mb", "buffers_mb", "tables_mb", "step_peak_mb"]
BY_AUTO = ("X", "X, for_training")
METHODS = ("dense", "masked", *BY_AUTO)


def measure(name: str, method: str) -> list[object]:
    """In this process: parameters, and in MB what COLUMNS says."""
    import torch

    from benchmarks.baselines import masked_twin
    from benchmarks.networks import optimizer_of, training_step
    from xnets import ExpanderConv2d, for_training
    from xnets.models import build, parse_name

    torch.set_num_threads(1)
    torch.manual_seed(0)
    parsed = parse_name(name)
    for kernel in ("dense", "direct"):  # oneDNN and LLVM are loaded: what they take is no network's
        layer = ExpanderConv2d(8, 8, 3, padding=1, compression=2, kernel=kernel)
        layer(torch.ones(4, 8, 8, 8)).sum().backward()
    before = _resident()
    model = build(parsed.dense_twin if method == "dense" else name)
    model = masked_twin(model) if method == "masked" else model
    model = for_training(model) if method == "X, for_training" else model
    x = torch.randn(BATCHES[name], 3, parsed.image_size, parsed.image_size)
    optimizer, parameters, buffers = optimizer_of(model), list(model.parameters()), list(model.buffers())
    states = []

    def after_update(*_: object) -> None:  # the gradients are there still
        momenta = [value for of_one in optimizer.state.values() for value in of_one.values() if torch.is_tensor(value)]
        states.append(_megabytes([*parameters, *(p.grad for p in parameters), *momenta]))

    optimizer.register_step_post_hook(after_update)
    step = training_step(model, x, "auto" if method in BY_AUTO else "dense", optimizer)
    step()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before
    tables = [found for found in _tensors() if not found.is_floating_point()]
    sizes = [states[-1], _megabytes(buffers), _megabytes(tables, but=buffers)]
    return [sum(p.numel() for p in parameters), *(f"{size:.2f}" for size in sizes), f"{peak:.0f}"]


def _tensors() -> list["torch.Tensor"]:
    """All that this process has."""
    import torch

    return [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]


def _megabytes(tensors: list["torch.Tensor"], but: Sequence["torch.Tensor"] = ()) -> float:
    """Of their memory, each piece of it counted once, and not that of others."""
    sizes = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(sizes[place] for place in sizes.keys() - {other.data_ptr() for other in but}) / 1e6


def _resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def rows(networks: list[str]) -> Iterator[list]:
    """Of the csv, each as it is measured."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XNETS_CACHE": cache, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
        for name in networks:
            for method in METHODS:
                command = [sys.executable, "-m", "benchmarks.memory", "--one", name, method]
                for _ in range(1 + (method in BY_AUTO)):  # the first measures and compiles kernels: not a usual step
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                row = [name, BATCHES[name], method, *json.loads(done.stdout)]
                print(*row, sep="  ", flush=True)
                yield row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "METHOD"), help="measure one in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    write_rows(options.csv, COLUMNS, PART, rows(options.networks))


if __name__ == "__main__":
    main()
