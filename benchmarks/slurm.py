"""`make bench-slurm`: the sweep on a real SLURM of this machine, as numbers.

Brings up slurm/local_cluster.sh in a folder of its own, clones the last commit and writes benchmarks/slurm.json:
- 2,000 tiny runs, a job for each: the seconds that plan, submit, status and cancel take;
- the whole demo by plain `dvc repro` with `executor: slurm`, in jobs of two minutes that SLURM preempts now and then:
  the seconds it takes, and whether its result files are those that dvc.lock records of `executor: local`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from xnets.machine import cpu_name

TOP = Path(__file__).parent.parent
MANY = """
many:
  about: tiny runs, to see how long it takes to send them
  items: [table5]
  datasets: {imagenet: digits}
  networks: {mobilenet: {narrow: 2, drop_strides: 3}}
  protocols: {imagenet-mobilenet: {epochs: 1, batch_size: 100, augmentation: crop-1}}
"""
RUNS_PER_NETWORK = 223  # of 9 networks: 2,007 runs
PREEMPT_EVERY = 90  # seconds
TARGETS = {"plan_s": "<= 5", "submit_s": "<= 5", "status_s": "<= 5", "demo_same_as_dvc_lock": "true"}


def main() -> None:
    """Measure and write."""
    folder = Path(tempfile.mkdtemp(prefix="xs", dir="/tmp"))
    try:
        report = {"machine": f"{os.cpu_count()} cores, {cpu_name()}", "commit": _git("rev-parse", "HEAD")}
        with _cluster(folder / "slurm"):
            report |= {"slurm": _words("sbatch", "--version"), **_many_runs(folder / "many"), **_demo(folder / "demo")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report["targets"] = TARGETS
    (TOP / "benchmarks" / "slurm.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _many_runs(clone: Path) -> dict[str, Any]:
    """Send them, look, and end them again; none is waited for."""
    _clone(clone, scale="many", seeds={"table5": RUNS_PER_NETWORK}, preset={"minutes_per_job": 0, "at_most": 1})
    _run(clone, "dvc", "repro", "--quiet", "prepare", "sample", "cost")
    seconds, _ = _run(clone, "xnets", "sweep", "plan")
    report = {"plan_s": seconds}
    report["submit_s"], text = _run(clone, "xnets", "sweep", "submit")
    jobs, runs = map(int, re.search(r"(\d+) jobs submitted for (\d+) runs", text).groups())
    report["status_s"], text = _run(clone, "xnets", "sweep", "status", status=1)
    report["submit_again_s"], text = _run(clone, "xnets", "sweep", "submit")
    assert f"{runs} are under way" in text, text
    report["cancel_s"], _ = _run(clone, "xnets", "sweep", "cancel", "--yes")
    report["status_of_cancelled_s"], _ = _run(clone, "xnets", "sweep", "status", status=1)
    return {"runs": runs, "jobs": jobs, **report}


def _demo(clone: Path) -> dict[str, Any]:
    """All of it, and what it is worth beside dvc.lock."""
    _clone(clone, preset={"time_minutes": 2, "signal_seconds": 20, "minutes_per_job": 2})
    stop = threading.Event()
    preempting = threading.Thread(target=_preempt_now_and_then, args=(stop,))
    preempting.start()
    try:
        seconds, _ = _run(clone, "dvc", "repro")
    finally:
        stop.set()
        preempting.join()
    attempts = [path.read_text().splitlines() for path in (clone / "store").glob("*/attempts.jsonl")]
    ends = [json.loads(line)["how"] for lines in attempts for line in lines if '"how"' in line]
    return {
        "demo_repro_s": seconds,
        "demo_runs": len(attempts),
        "demo_runs_trained_once": sum(sum('"done"' in line for line in lines) == 1 for lines in attempts),
        "demo_stops": ends.count("stopped"),
        "demo_same_as_dvc_lock": _results(clone / "dvc.lock") == _results(TOP / "dvc.lock"),
    }


def _results(lock: Path) -> dict[str, str]:
    """The hash of every output that dvc.lock records."""
    stages = yaml.safe_load(lock.read_text())["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def _preempt_now_and_then(stop: threading.Event) -> None:
    while not stop.wait(PREEMPT_EVERY):
        subprocess.run(
            ["sbatch", "--partition=high", "--nodes=1", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
            capture_output=True, check=True,
        )  # fmt: skip


def _clone(folder: Path, preset: dict[str, Any], **params: Any) -> None:
    subprocess.run(["git", "clone", "--quiet", str(TOP), str(folder)], check=True)
    with open(folder / "experiments" / "scales.yaml", "a") as file:
        file.write(MANY if "scale" in params else "")
    local = yaml.safe_load((TOP / "slurm" / "clusters" / "local.yaml").read_text())
    (folder / "cluster.yaml").write_text(yaml.safe_dump(local | preset))
    said = yaml.safe_load((folder / "params.yaml").read_text())
    said |= {"executor": "slurm", "slurm": {"cluster": "cluster.yaml"}, **params}
    (folder / "params.yaml").write_text(yaml.safe_dump(said, sort_keys=False))


def _run(folder: Path, *command: str, status: int = 0) -> tuple[float, str]:
    """Seconds and output of a command there, with the code that is there."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != status:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    seconds = round(time.monotonic() - started, 2)
    print(f"{seconds:8} s  {' '.join(command)}", file=sys.stderr, flush=True)
    return seconds, done.stdout + done.stderr


@contextmanager
def _cluster(folder: Path) -> Iterator[None]:
    script = [str(TOP / "slurm" / "local_cluster.sh"), "--folder", str(folder)]
    subprocess.run([*script, "up"], check=True, stdout=subprocess.DEVNULL)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it comes down then, too
    try:
        yield
    finally:
        subprocess.run([*script, "down"], check=True)


def _git(*arguments: str) -> str:
    return _words("git", "-C", str(TOP), *arguments)


def _words(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
