"""`python -m experiments STAGE`: what dvc.yaml calls."""

import argparse
import os
import sys

from experiments.processes import end_with_parent, starter


def main() -> int:
    """Run one stage on params.yaml."""
    if "DVC_ROOT" in os.environ:  # a killed `dvc repro` must not leave a stage behind that nobody sees
        parent = starter()
        if not parent:
            print("experiments: the `dvc` of this stage has ended; by hand, run it without DVC_ROOT.", file=sys.stderr)
            return 1
        end_with_parent(parent)

    # Imported only now: they take a second, in which `dvc` may be killed as well.
    from experiments.plan import make_plan
    from experiments.settings import read_settings
    from experiments.stages import STAGES
    from xnets.cli import run_command

    parser = argparse.ArgumentParser("python -m experiments", description="One stage of the pipeline; see dvc.yaml.")
    parser.add_argument("stage", choices=STAGES, help="; ".join(f"{name}: {f.__doc__}" for name, f in STAGES.items()))
    stage = STAGES[parser.parse_args().stage]
    return run_command(lambda: stage(make_plan(read_settings())), f"experiments {stage.__name__}")


if __name__ == "__main__":
    sys.exit(main())
