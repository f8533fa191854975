"""A cluster of one machine: sbatch, srun and scontrol, as far as a job of vfm uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SBATCH = """#!/bin/bash
if grep -q -- --partition=nowhere "$1"; then
  echo "sbatch: error: invalid partition specified: nowhere" >&2
  exit 1
fi
echo "Submitted batch job 7"
"""
SCONTROL = """#!/bin/bash
case "$1" in
  show) echo 127.0.0.1 ;;
  requeue) echo "$2" >> "$CLUSTER/requeued" ;;
esac
"""
SRUN = f"""#!{sys.executable}
# Starts every task in a group of its own, and hands signals to whole groups, as Slurm does.
import os, signal, subprocess, sys
words = sys.argv[1:]
log = words[words.index("--output") + 1].replace("%j", os.environ["SLURM_JOB_ID"])
tasks = []
def hand_down(number, frame):
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, number)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, hand_down)
for rank in range(int(os.environ["WORLD_SIZE"])):
    told = {{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}}
    with open(log.replace("%t", str(rank)), "a") as file:
        tasks.append(subprocess.Popen(words[words.index("bash"):], env=told, stdout=file, stderr=file, start_new_session=True))
with open(os.path.join(os.environ["CLUSTER"], "srun.pid"), "w") as file:
    file.write(str(os.getpid()))
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""


@dataclass(frozen=True)
class Cluster:
    """Commands in a folder that is put on PATH."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Cluster:
        """Write the commands."""
        folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        return cls(folder)

    @property
    def path(self) -> str:
        """PATH with the commands first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def start(self, script: Path) -> subprocess.Popen[str]:
        """Run a batch script as the cluster would when the job's turn has come."""
        (self.folder / "srun.pid").unlink(missing_ok=True)
        environment = {
            **os.environ, "PATH": self.path, "CLUSTER": str(self.folder), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1",
            "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.Popen(["bash", str(script)], env=environment, stderr=subprocess.PIPE, text=True)

    def signal(self, number: int) -> None:
        """To every task of the job that runs."""
        os.kill(int((self.folder / "srun.pid").read_text()), number)

    @property
    def requeued(self) -> int:
        """How often a job was put back."""
        file = self.folder / "requeued"
        return len(file.read_text().splitlines()) if file.exists() else 0


def wait_until_it_trains(run: Path, job: subprocess.Popen[str], lines: int = 1, seconds: float = 120) -> None:
    """Until a run has logged so many steps, or its job has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and job.poll() is None:
        file = run / "metrics.jsonl"
        if file.exists() and len(file.read_text().splitlines()) >= lines:
            return
        time.sleep(0.02)


def stop(job: subprocess.Popen[str]) -> None:
    """End what a failed test leaves behind."""
    if job.poll() is None:
        job.send_signal(signal.SIGKILL)
        job.wait()
