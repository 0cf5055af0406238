"""How a network is trained: everything but the network, the data and the seeds. Needs no torch."""

import math
from dataclasses import dataclass

from xnets.errors import XNetsError
from xnets.whole import whole_number

# How training images are changed on their way in; xnets.data.batches does it.
AUGMENTATIONS = {
    "none": "the images as they are",
    "crop-1": "zero-pad by 1, random crop: for the 8x8 digits, which a flip would turn into other signs",
    "crop-4-flip": "zero-pad by 4, random crop, random flip: the authors' CIFAR",
    "resized-crop-flip": "random crop of 8-100 % of the area resized to 224x224, random flip: the authors' ImageNet",
}
SCHEDULES = ("cifar", "imagenet", "decay", "linear")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Protocol:
    """SGD with momentum under one of the authors' learning-rate schedules (facts of 11,733 logged epochs) or ours.

    epochs: passes over the training set. nominal_epochs: what the schedule's formula is written for; with fewer epochs
    it is run through in proportion, so that it keeps its shape. decay_interval (in nominal epochs) and decay_level: of
    the "decay" schedule. augmentation: a name in AUGMENTATIONS. precision: of the forward and
    backward pass.
    """

    epochs: int
    batch_size: int
    max_lr: float
    schedule: str
    augmentation: str
    weight_decay: float
    nominal_epochs: int
    min_lr: float = 0.0
    decay_interval: int = 30
    decay_level: float = 0.5
    momentum: float = 0.9
    nesterov: bool = True
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise XNetsError(f"Unknown schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}.")
        if self.augmentation not in AUGMENTATIONS:
            raise XNetsError(f"Unknown augmentation {self.augmentation!r}; there are {', '.join(AUGMENTATIONS)}.")
        if self.precision not in PRECISIONS:
            raise XNetsError(f"Unknown precision {self.precision!r}; there are {', '.join(PRECISIONS)}.")
        for name in ("epochs", "batch_size", "nominal_epochs", "decay_interval"):
            whole_number(name, getattr(self, name))
        for name in ("max_lr", "weight_decay", "min_lr", "decay_level", "momentum"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise XNetsError(f"{name} must be a number >= 0, not {value!r}.")
        if type(self.nesterov) is not bool:
            raise XNetsError(f"nesterov must be true or false, not {self.nesterov!r}.")

    def learning_rate(self, epoch: int) -> float:
        """The rate of a 0-based epoch, with e the nominal epoch (e = epoch where none are cut).

        cifar:    max_lr * 0.1^floor(e / 150) * 0.1^floor(e / 225)
        imagenet: max_lr * 0.1^floor(e / 30)
        decay:    max_lr * decay_level^floor(e / decay_interval)
        linear:   up to max_lr over the first sixth of the epochs, one epoch more at max_lr, then down in equal steps
                  (ours, for few epochs)
        never below min_lr.
        """

        def passed(interval: int) -> int:  # floor(e / interval) in whole numbers
            return epoch * self.nominal_epochs // (self.epochs * interval)

        if self.schedule == "cifar":
            factor = 0.1 ** passed(150) * 0.1 ** passed(225)
        elif self.schedule == "imagenet":
            factor = 0.1 ** passed(30)
        elif self.schedule == "linear":
            rise = max(1, self.epochs // 6)
            factor = (epoch + 1) / rise if epoch < rise else (self.epochs - epoch) / (self.epochs - rise)
        else:
            factor = self.decay_level ** passed(self.decay_interval)
        return max(self.min_lr, self.max_lr * factor)
