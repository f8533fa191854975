"""Several processes on one machine: `vfm pretrain --processes N`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def relaunch(processes: int, arguments: Sequence[str]) -> int:
    """Run `python -m vfm_cli <arguments>` in `processes` processes under torchrun and return their exit code.

    (`accelerate launch --cpu --num_processes N` silently starts one process, so torchrun is used itself.) The group's exit code is the
    first failing process's, which torchrun hides behind 1; it is handed over in a file.
    """
    import tempfile

    threads = max(1, (os.cpu_count() or 1) // processes)
    with tempfile.TemporaryDirectory() as folder:
        code = os.path.join(folder, "exit")
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "VFM_EXIT_FILE": code}
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "vfm_cli",
            *arguments,
        ]
        outcome = subprocess.run(command, env=environment, check=False).returncode
        if outcome and os.path.isfile(code):
            with open(code, encoding="ascii") as file:
                return int(file.read())
        return outcome


def is_main() -> bool:
    """Whether this process speaks for its group."""
    return int(os.environ.get("RANK", "0")) == 0
