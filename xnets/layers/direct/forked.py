"""Locks that forked children may use."""

import os
import threading


class ForkedLock:
    """`now` is a lock that is free in a forked child, where the thread that held it is not."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.now = threading.Lock()  # used as it is: a signal's handler may raise between any two lines of Python
