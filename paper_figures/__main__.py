"""`python -m paper_figures tables`, `figure N`, `theory NAME` and `studies`: the last stages of dvc.yaml."""

import argparse
import importlib
import sys
from pathlib import Path

from experiments.settings import read_settings
from xnets.cli import run_command

FIGURES = {
    1: "grouped, pruned and expander connectivity",
    2: "the fast algorithm of an X-Conv layer on a small graph",
    3: "MobileNet-0.5 on ImageNet: groups against expanders",
    4: "DenseNet-BC and X-DenseNet-BC on CIFAR-10 and CIFAR-100",
    5: "ResNet and X-ResNet on ImageNet",
    6: "wider and deeper X-DenseNet-BCs on CIFAR-100",
}
THEORY = {
    "sensitivity": "layers until every output sees every input (Theorem 1)",
    "mixing": "edges between sets against D|S||T|/n (Theorem 2)",
    "constructions": "the gap of every construction against the Ramanujan ratio",
    "gaps": "the gap of sampled graphs for the paper's layer shapes (section 5.4)",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one sentence and exit status 2."""
    parser = argparse.ArgumentParser(
        "python -m paper_figures",
        description="Draw the paper's figures and tables from results/<scale>/, for the scale of params.yaml.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    tables = commands.add_parser(
        "tables",
        help="Tables 1-5 as .csv, .md and .tex: results/<scale>/tables/",
        description="Write Tables 1-5 as results/<scale>/tables/tableN.csv, .md and .tex, and all of them as all.md.",
    )
    tables.set_defaults(run=_tables)
    figure = commands.add_parser(
        "figure",
        help="one of Figs. 1-6 as .pdf, .png and .csv: results/<scale>/figures/",
        description="Draw one figure as results/<scale>/figures/figureN.pdf, .png and .csv (the data it shows).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {number}  {about}" for number, about in FIGURES.items()),
    )
    figure.add_argument("number", type=int, choices=FIGURES, metavar="N", help="1 to 6, see below")
    figure.set_defaults(run=_figure)
    studies = commands.add_parser(
        "studies",
        help="the studies beyond the paper, with figures: results/<scale>/studies/",
        description="Write each study's runs as csv and draw its figures: results/<scale>/studies/.",
    )
    studies.set_defaults(run=_studies)
    published = commands.add_parser(
        "published",
        help="what the published runs say of the paper's claims, with figures: docs/published/",
        description="Judge the claims of experiments/claims.yaml by published/, and draw its studies.",
    )
    published.add_argument("--to", type=Path, default=Path("docs/published"), help="a folder (%(default)s)")
    published.set_defaults(run=_published)
    theory = commands.add_parser(
        "theory",
        help="what the paper says of graphs, measured, as .pdf, .png and .csv: results/<scale>/theory/",
        description="Draw one figure from the files of `python -m experiments.theory`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:14}{about}" for name, about in THEORY.items()),
    )
    theory.add_argument("name", choices=THEORY, metavar="NAME", help="see below")
    theory.add_argument(
        "--from", dest="source", type=Path, help="a folder; results/<scale>/theory/measured unless given"
    )
    theory.add_argument("--to", type=Path, help="a folder; results/<scale>/theory unless given")
    theory.set_defaults(run=_theory)
    args = parser.parse_args(argv)
    return run_command(lambda: args.run(args), "paper_figures")


def _tables(args: argparse.Namespace) -> None:
    from paper_figures.table_files import write_tables
    from paper_figures.tables import build_tables

    settings = read_settings()
    write_tables(build_tables(settings), settings.results / "tables")


def _studies(args: argparse.Namespace) -> None:
    from paper_figures.studies.files import write_studies

    write_studies(read_settings())


def _published(args: argparse.Namespace) -> None:
    from paper_figures.published import write_published

    write_published(read_settings(), args.to)


def _figure(args: argparse.Namespace) -> None:
    from paper_figures.drawing import save

    settings = read_settings()
    module = importlib.import_module(f"paper_figures.figure{args.number}")
    figure, data = module.draw(settings)
    save(figure, data, settings.results / "figures" / f"figure{args.number}")


def _theory(args: argparse.Namespace) -> None:
    from paper_figures.drawing import save

    folder = read_settings().results / "theory"
    module = importlib.import_module(f"paper_figures.theory.{args.name}")
    figure, data = module.draw(args.source or folder / "measured")
    save(figure, data, (args.to or folder) / args.name)


if __name__ == "__main__":
    sys.exit(main())
