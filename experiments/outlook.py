"""What a plan still has to train, and how long that will take: what `xnets sweep plan` prints."""

from collections.abc import Callable

from experiments.duration import duration
from experiments.estimate import Estimate
from experiments.local import devices_here
from experiments.plan import Plan
from experiments.store import Store
from xnets.training import Run


def print_outlook_here(plan: Plan, all_runs: bool) -> None:
    """On the workers of this machine."""
    workers = devices_here(plan.settings, 10**6)
    device = workers[0].split(":")[0]
    estimate = Estimate(plan, device)

    def together(lacking: list[Run]) -> str:
        seconds = sum(map(estimate.seconds, lacking)) / len(workers)
        return f"about {duration(seconds)} on {len(workers)} x {device}. Rows share runs."

    print_outlook(plan, estimate, together, all_runs)


def print_outlook(plan: Plan, estimate: Estimate, together: Callable[[list[Run]], str], all_runs: bool) -> None:
    """Each table's runs, done and to train. together: a sentence on where all that lack are trained, and how long."""
    store, items = Store(plan.settings.store), plan.runs_of_items(missing_ok=True)
    runs = list(dict.fromkeys(run for wanted in items.values() for run in wanted))
    lacking = dict.fromkeys(run for run in runs if not store.is_done(run))
    print(f"scale {plan.settings.scale}: {plan.about}")
    wide = max(map(len, [*items, "together"])) + 2
    print(f"{'':{wide}}{'runs':>6}{'done':>6}{'to train':>10}   time on one {unit(estimate.device)}")
    for item, wanted in [*items.items(), ("together", runs)]:
        missing = [run for run in dict.fromkeys(wanted) if run in lacking]
        time_ = duration(sum(map(estimate.seconds, missing)))
        print(f"{item:{wide}}{len(wanted):6}{len(wanted) - len(missing):6}{len(missing):10}   {time_}")
    print(together(list(lacking)))
    print(f"Times are {estimate.basis}.")
    if all_runs:
        for run in runs:
            state = "to train" if run in lacking else "done"
            print(f"  {state:9}{duration(estimate.seconds(run)):>10}  {run.fingerprint[:12]}  {run.label}")


def unit(device: str) -> str:
    """What one worker computes on."""
    return "GPU" if device == "cuda" else "core"
