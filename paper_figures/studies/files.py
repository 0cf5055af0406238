"""results/<scale>/studies/: of each study its runs as csv, its figures with their data, and one page about all."""

import importlib
import shutil

import pandas as pd

from experiments.plan import make_plan
from experiments.results import read_results
from experiments.settings import Settings
from experiments.studies import Study, read_studies
from paper_figures.csv_text import csv_text
from paper_figures.drawing import save
from paper_figures.studies.frames import face, study_frame
from xnets.errors import XNetsError
from xnets.files import write_text


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
        write_text(folder / f"{name}.csv", csv_text(frame))
    for name, (figure, data) in drawn.items():
        save(figure, data, folder / name)
    page = ["# Studies", *(_about(study, frames[study.name]) for study in studies), ""]
    write_text(folder / "all.md", "\n".join(page))


def _about(study: Study, frame: pd.DataFrame) -> str:
    pictures = "\n".join(f"![{study.name}, {kind}]({study.name}-{kind}.png)" for kind in study.figures)
    runs = f"{len(frame)} runs of {frame['label'].nunique()} configurations: [{study.name}.csv]({study.name}.csv)."
    return f"\n## {study.name}\n\n{study.question} {face(frame)[0]}. {runs}\n\n{pictures}"
