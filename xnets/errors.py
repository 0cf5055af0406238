"""The one exception this project raises for what a user can mend."""


class XNetsError(ValueError):
    """Wrong input, said in one sentence that names what is wrong and what to do.

    The command line prints the sentence and exits with 2; in Python it is an ordinary ValueError.
    """


class CannotWrite(XNetsError):
    """The disk is full, read-only or gone."""


class Stopped(XNetsError):
    """A run was asked to stop before its end; what it has reached is in its checkpoint."""
