"""Several processes on one machine: `vfm pretrain --processes N`.

    vfm (relaunch) -> python -m recipes.training.launch (torchrun's agent) -> N x python -m vfm_cli

A signal goes down that chain once, and everybody waits for the ranks, which save and leave. (`accelerate launch --cpu --num_processes N`
silently starts one process, so torchrun is used itself.)
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from domains.errors import TrainingError
from domains.machine import cores

PATIENCE = 120  # seconds for a step and a checkpoint after a signal, before ranks are killed; torchrun's own 30 are short for a CPU
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def relaunch(processes: int, arguments: Sequence[str]) -> int:
    """Run `python -m vfm_cli <arguments>` in `processes` processes and return their exit code: the first failing one's.

    torchrun hides that code behind 1; it is handed over in a file. Raises TrainingError where the processes ended without a word.
    """
    threads = max(1, cores() // processes)
    with tempfile.TemporaryDirectory() as folder:
        code = os.path.join(folder, "exit")
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "VFM_EXIT_FILE": code}
        command = [sys.executable, "-m", "recipes.training.launch", str(processes), *arguments]
        # A session of its own: Ctrl-C on a terminal reaches it through `handed_down` alone, once.
        group = subprocess.Popen(command, env=environment, start_new_session=True)
        with handed_down(group):
            outcome = group.wait()
        if outcome and os.path.isfile(code):
            with open(code, encoding="ascii") as file:
                return int(file.read())
    if outcome:
        do = "Free memory or use fewer processes, then --resume from the last checkpoint"
        raise TrainingError("a process was killed from outside", where=f"{processes} processes", do=do)
    return 0


@contextmanager
def handed_down(group: subprocess.Popen[bytes]) -> Iterator[None]:
    """The first signal to stop goes to `group`; more are not passed on, since torchrun would then leave its ranks behind.

    A closed terminal (SIGHUP) counts as SIGTERM, unless it is ignored (nohup).
    """
    sent: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not sent:
            sent.append(number)
            group.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agent(processes: str, *arguments: str) -> int:
    """torchrun without its log and stack traces: 0 where every rank ended well, else 1."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable(
        logging.CRITICAL
    )  # what the agent has to say of a failure, the process that failed has said in one line
    asked = parse_args(["--standalone", f"--nproc-per-node={processes}", "-m", "vfm_cli", *arguments])
    asked.shutdown_timeout = PATIENCE
    asked.signals_to_handle += ",SIGUSR1"
    try:
        run(asked)
    except (ChildFailedError, SignalException):
        return 1
    return 0


def is_main() -> bool:
    """Whether this process speaks for its group."""
    return int(os.environ.get("RANK", "0")) == 0


if __name__ == "__main__":
    sys.exit(agent(*sys.argv[1:]))
