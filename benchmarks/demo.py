"""`make bench-demo`: how long the demo takes from a fresh clone, and what it costs to find that nothing is to be done.

Clones the committed repository into a temporary folder, runs `dvc repro` there and writes benchmarks/demo.json. Run it
on a quiet machine; it is a record, not a test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from xnets.machine import cpu_name

TOP = Path(__file__).parent.parent
TARGETS = {
    "repro_s": "<= 600",
    "second_repro_s": "<= 5",
    "finished_run_s": "<= 0.3",
    "mlflow_s_per_130_runs": "<= 15",
    "peak_memory_gib": "< 4",
}


def main() -> None:
    """Measure and write."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    scratch = Path(tempfile.mkdtemp(prefix="xnets-bench-"))
    try:
        clone = scratch / "clone"
        subprocess.run(["git", "clone", "--quiet", str(TOP), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, check=True
        ).stdout
        repro_s, peak, text = timed(["dvc", "repro"], clone, environment)
        stages = stage_seconds(text)
        second_s, _, _ = timed(["dvc", "repro"], clone, environment)
        runs = len(list((clone / "store").glob("*/result.json")))
        done_s, _, _ = timed(["python", "-m", "experiments", "train"], clone, environment)
        fresh = {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/fresh.db"}
        track_s, _, told = timed(["python", "-m", "experiments", "track"], clone, fresh)
        added = int(re.search(r"track: (\d+) runs added", told).group(1))
    finally:
        shutil.rmtree(scratch)
    report = {
        "machine": f"{os.cpu_count()} cores, {cpu_name()}",
        "commit": commit.strip(),
        "runs": runs,
        "repro_s": round(repro_s, 1),
        "second_repro_s": round(second_s, 2),
        "finished_run_s": round(done_s / runs, 4),
        "mlflow_children": added,
        "mlflow_s": round(track_s, 1),
        "mlflow_s_per_130_runs": round(track_s / added * 130, 1),
        "peak_memory_gib": round(peak / 2**30, 2),
        "stage_s": stages,
        "targets": TARGETS,
    }
    (TOP / "benchmarks" / "demo.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, int, str]:
    """Seconds, the peak of the memory of all its processes in bytes, and what it printed with the time of each line."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = [f"{time.monotonic() - started:.1f}\t{line}" for line in process.stdout]
    watcher.join()
    if process.wait():
        sys.exit("".join(lines[-20:]))
    return time.monotonic() - started, peak, "".join(lines)


def memory(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes: shared libraries count once."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                info = process.memory_full_info()
                total += getattr(info, "pss", info.rss)
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def stage_seconds(text: str) -> dict[str, float]:
    """Seconds of each stage, from when dvc announced it to when it announced the next."""
    starts = [(float(t), name) for t, name in re.findall(r"^([\d.]+)\tRunning stage '([^']+)'", text, flags=re.M)]
    end = float(text.splitlines()[-1].split("\t")[0])
    stops = [t for t, _ in starts[1:]] + [end]
    return {name: round(stop - start, 1) for (start, name), stop in zip(starts, stops, strict=True)}


if __name__ == "__main__":
    main()
