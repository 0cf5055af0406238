"""Training: protocols and their schedules, runs and their fingerprints, the loop, checkpoints."""

from xnets.training.protocol import Protocol
from xnets.training.run import ENGINE, Run

__all__ = ["ENGINE", "Protocol", "Run"]
