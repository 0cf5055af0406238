"""What room there is in files of a size, and which runs have it."""

import math
import tarfile

from experiments.bundles.format import SEAL_SIZE, Packed, manifest
from xnets.errors import XNetsError
from xnets.training import Run

LEAST_MIB, MOST_MIB = 0.001, 1e6  # of a file; below, what gzip adds has no room
ENDS = 4 * 512 + tarfile.RECORDSIZE + len(manifest([]))  # of a tar: headers, and the padding at the end


def check_max_mib(max_mib: float) -> None:
    """Raise XNetsError unless files can be of that size."""
    if not LEAST_MIB <= max_mib <= MOST_MIB:
        raise XNetsError(f"--max-mib must be from {LEAST_MIB} to {MOST_MIB:.0f}, not {max_mib:g}.")


def fitting(bundle: list[Packed], max_mib: float, max_files: int, suffix: str) -> tuple[list[Packed], dict[Run, str]]:
    """As many of them, in their order, as are sure to fit into so many files of that size; why others do not."""

    def needed(runs: list[Packed]) -> int:
        in_order = sorted(runs, key=lambda each: each.run.fingerprint)
        return sum(files for _, files in cut(in_order, max_mib, suffix, volumes=True))

    if needed(bundle) <= max_files:
        return bundle, {}
    kept: list[Packed] = []
    left_out = {}
    for packed in bundle:
        if needed([*kept, packed]) > max_files:
            left_out[packed.run] = (
                f"{packed.run.label}: {max_files} files of {max_mib:g} MiB have no room left for it: "
                f"say --max-files {needed(bundle)} or more."
            )
        else:
            kept.append(packed)
    return kept, left_out


def cut(bundle: list[Packed], max_mib: float, suffix: str, volumes: bool) -> list[tuple[list[Packed], int]]:
    """In their order, as many runs into a part as are sure to fit into one file, and 1.

    volumes: a run that no file holds is of a part that becomes several, so many; it takes in what saves a file.
    """
    most = max_mib * 2**20
    if suffix != ".tar":
        most = most / 1.001 - 100 - SEAL_SIZE  # what gzip adds at most, to what it cannot compress

    def files(size: int) -> int:
        return math.ceil((size + ENDS) / most)

    parts: list[list[Packed]] = [[]]
    sizes = [0]
    for packed in bundle:
        takes = len(manifest([packed])) + sum(512 + -(-about["size"] // 512) * 512 for about in packed.files.values())
        if files(takes) > 1 and not volumes:
            needed = max_mib + (takes + ENDS - most) * 1.001 / 2**20
            advice = f"say --max-mib {needed + 0.05:.1f} or more"
            raise XNetsError(f"{packed.run.label} alone does not fit into {max_mib:g} MiB: {advice}.")
        if parts[-1] and files(sizes[-1] + takes) == files(sizes[-1]) + files(takes):
            parts.append([])
            sizes.append(0)
        parts[-1].append(packed)
        sizes[-1] += takes
    return [(part, files(size)) for part, size in zip(parts, sizes, strict=True)]
