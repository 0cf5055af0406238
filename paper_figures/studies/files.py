"""results/<scale>/studies/: of each study its runs as csv, its figures with their data, and one page about all."""

import importlib
import shutil
from pathlib import Path

import pandas as pd

from experiments.plan import make_plan
from experiments.results import read_results
from experiments.settings import Settings
from experiments.studies import Study, read_studies
from paper_figures.drawing import save
from paper_figures.studies.frames import face, study_frame
from xnets.errors import XNetsError
from xnets.files import write_atomically


def write_studies(settings: Settings) -> None:
    """Write <study>.csv, <study>-<figure>.pdf, .png and .csv, and all.md; what else is in the folder goes."""
    plan = make_plan(settings)
    studies = [study for name, study in read_studies(settings.scale).items() if name in settings.studies]
    results = read_results(plan)
    frames = {study.name: study_frame(study, plan, results) for study in studies}
    drawn = {
        f"{study.name}-{kind}": importlib.import_module(f"paper_figures.studies.{kind}").draw(study, frames[study.name])
        for study in studies
        for kind in study.figures
    }
    folder = settings.results / "studies"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise XNetsError(f"Cannot write {folder} ({error.strerror}): free space or make it writable.") from None
    for name, frame in frames.items():
        _write(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
    for name, (figure, data) in drawn.items():
        save(figure, data, folder / name)
    _write(folder / "all.md", "\n".join(["# Studies", *(_about(study, frames[study.name]) for study in studies), ""]))


def _about(study: Study, frame: pd.DataFrame) -> str:
    pictures = "\n".join(f"![{study.name}, {kind}]({study.name}-{kind}.png)" for kind in study.figures)
    runs = f"{len(frame)} runs of {frame['label'].nunique()} configurations: [{study.name}.csv]({study.name}.csv)."
    return f"\n## {study.name}\n\n{study.question} {face(frame)[0]}. {runs}\n\n{pictures}"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
