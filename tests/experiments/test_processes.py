"""How processes end with those that started them."""

import contextlib
import os
import signal
import subprocess
import sys

CHILD = """
import os, sys, time
from experiments.processes import end_with_parent
reader, writer = os.pipe()
os.dup2(writer, 2)
os.close(reader)
os.close(writer)
sys.stderr.buffer.write(b"the beginning of a line")
end_with_parent(os.getppid())
print("watching", flush=True)
time.sleep(300)
"""


def test_ends_with_its_parent_though_nobody_reads_stderr_any_more():
    """As when a terminal is closed: what was left to write must not keep the process."""
    command = ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, CHILD]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=buffered) as parent:
        assert parent.stdout.readline() == "watching\n"
        parent.kill()
        try:
            parent.communicate(timeout=60)  # returns once the child has closed it too
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
