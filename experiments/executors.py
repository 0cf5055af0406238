"""Where runs are done: the executors that params.yaml can choose. Packages above this one add theirs by entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from xnets.errors import XNetsError
from xnets.plugins import entry_points

if TYPE_CHECKING:
    from experiments.settings import Settings
    from xnets.training import Run

# Called with ("start" | "epoch" | "done" | "failed", run, epoch's record or reason), with ("note", None, a sentence to
# keep), or with ("where", None, what is going on now).
OnEvent = Callable[[str, "Run | None", Any], None]

GROUP = "xnets.executors"


class Executor(Protocol):
    """Does `task` ("train" or "evaluate") on each of `runs`, leaves the outcomes in the store of `settings`, and tells
    `on_event`. Returns the reasons of those that failed. A run that is already at work elsewhere is waited for."""

    def __call__(self, task: str, runs: list[Run], settings: Settings, on_event: OnEvent) -> dict[Run, str]: ...


def executor_names() -> list[str]:
    """All that are installed."""
    return sorted(entry_points(group=GROUP).names)


def find_executor(name: str) -> Executor:
    """The executor of this name. Raises XNetsError if what it needs is not installed."""
    try:
        return entry_points(group=GROUP)[name].load()
    except ModuleNotFoundError as error:
        raise XNetsError(f"The executor {name!r} needs the package {error.name}: run `make setup`.") from None
