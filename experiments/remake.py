"""Train a published run again, compare, and note the outcome in published/remade.csv."""

import csv
import io
from pathlib import Path
from typing import Any

from experiments.published import FOLDER, Record, read_published, read_record
from experiments.single import device_named, train_here
from experiments.stages import ready_data
from experiments.statistics import summarise
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.files import write_text

NOTES = FOLDER / "remade.csv"
TEXTS = (
    "run", "scale", "kernel", "threads", "published_device", "published_commit", "remade_device", "remade_commit",
    "remade_on",
)  # fmt: skip
NUMBERS = ("published_top1", "remade_top1", "most_apart")


def remake(path: Path, data_folder: Path, source: str | None, store: Store, device_name: str) -> Record:
    """Train the run of a record, with the kernel and threads that made it, into `store`, and print both side by side.

    Returns the record.

    Raises XNetsError for a damaged record, and for data that are not those it was trained on.
    """
    import torch

    from xnets.layers import kernels

    record = read_record(path)
    run, about = record.run, record.said["provenance"]
    device = device_named(device_name)
    data = ready_data(run.dataset, data_folder, source)
    if data.digest != run.data_digest:
        raise XNetsError(
            f"{path} was trained on other data: those in {data.folder} have the digest {data.digest[:12]}, not "
            f"{run.data_digest[:12]}."
        )
    torch.set_num_threads(about["threads"])
    kernels(about["kernel"])
    torch.use_deterministic_algorithms(about["deterministic"])
    train_here(run, store, data_folder, device, checkpoint_minutes=5, compiled=about.get("compiled", False))
    print(compared(record, store))
    return record


def compared(record: Record, store: Store) -> str:
    """Sentences on how the finished run in the store differs from its record. XNetsError for other graphs."""
    run, there = record.run, record.said
    here, seen = store.result(run), store.evaluation(run)
    if here["graphs_sha256"] != there["graphs_sha256"]:
        raise XNetsError(f"{run.label}: not the same graphs as those published: something is wrong with one of them.")
    if here["weights_sha256"] == there["weights_sha256"]:
        return f"{run.label}: the same weights as those published, to the last bit; top-1 {seen['top1']:.2f} %."
    published = there["evaluation"]["top1"]
    said = (
        f"{run.label}: top-1 {seen['top1']:.2f} % here, {published:.2f} % published; over all epochs they differ by at "
        f"most {_most_apart(here, there):.2f} points."
    )
    alike = [
        other.result.top1
        for other in read_published(record.path.parent.name, record.path.parent.parent)
        if (other.run.model, other.run.dataset, other.run.protocol) == (run.model, run.dataset, run.protocol)
    ]
    if len(alike) > 1:
        said += f" The {len(alike)} published runs of this configuration have a standard deviation of "
        said += f"{summarise(alike).sd:.2f} points."
    return said


def _most_apart(here: dict[str, Any], there: dict[str, Any]) -> float:
    """Points of test accuracy between two results of one run, in the epoch where they differ most."""
    return max(abs(a["test_top1"] - b["test_top1"]) for a, b in zip(here["epochs"], there["epochs"], strict=True))


def read_notes(notes: Path = NOTES) -> list[dict[str, str]]:
    """The lines of `notes`, [] if there is no such file. Raises XNetsError if it is not as `note` writes it."""
    if not notes.exists():
        return []
    try:
        table = csv.DictReader(io.StringIO(notes.read_text()), strict=True)
        lines = list(table)
        sound = set(table.fieldnames or ()) == {*TEXTS, *NUMBERS, "same_weights"}
        for line in lines:
            sound = sound and None not in line and None not in line.values()  # as many values as columns
            sound = (
                sound and line["same_weights"] in ("True", "False") and all(float(line[key]) >= 0 for key in NUMBERS)
            )
    except (ValueError, csv.Error):
        sound = False
    except OSError as error:
        raise XNetsError(f"{notes} cannot be read ({error.strerror}).") from None
    if not sound:
        raise XNetsError(f"{notes} is damaged: delete it and take it back from git.")
    return lines


def note(record: Record, store: Store, notes: Path = NOTES) -> None:
    """Write down how the finished run in the store compares with its record: a line of `notes` for each run."""
    here, there = store.result(record.run), record.said
    first, again = there["provenance"], here["provenance"]
    row = {
        "run": record.run.label,
        "scale": record.path.parent.name,
        "kernel": again["kernel"],
        "threads": again["threads"],
        "published_device": first.get("device"),
        "published_commit": first.get("commit"),
        "published_top1": there["evaluation"]["top1"],
        "remade_device": again["device"],
        "remade_commit": again["commit"],
        "remade_on": again["finished"][:10],
        "remade_top1": store.evaluation(record.run)["top1"],
        "most_apart": round(_most_apart(here, there), 4),
        "same_weights": here["weights_sha256"] == there["weights_sha256"],
    }
    known = read_notes(notes)
    text = io.StringIO()
    table = csv.DictWriter(text, row, lineterminator="\n")
    table.writeheader()
    table.writerows([*(old for old in known if old["run"] != row["run"]), row])
    write_text(notes, text.getvalue())
