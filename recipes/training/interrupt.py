"""Ctrl-C, SIGTERM, SIGUSR1 and a closed terminal set a flag; the loop saves at the next step boundary on all ranks, and then leaves."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import torch
import torch.distributed as dist
from torch import Tensor

from domains.errors import VfmError
from recipes.parts.distributed import world_size


class Interrupted(VfmError):
    """A run that was asked to stop and has saved. Exit code 128 + the signal: 130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1,
    with which a scheduler says that time is nearly up: requeue on that one.
    """

    def __init__(self, number: int, step: int, where: object) -> None:
        super().__init__(
            f"stopped at step {step}; everything up to it is saved", where=str(where), do="Continue with --resume"
        )
        self.exit_code = 128 + number


class StopSignal:
    """While entered, SIGINT, SIGTERM, SIGUSR1 and SIGHUP are noted instead of acted on. A second Ctrl-C stops at once, without saving.

    A closed terminal (SIGHUP) counts as SIGTERM, unless it is ignored (nohup).
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = signal.SIGTERM if number == signal.SIGHUP else number

    def agreed(self, broken: Tensor) -> tuple[int, bool]:
        """(the signal that any rank received, 0 for none; whether anything is broken on any rank); the same answer on every rank.

        broken: a single bool on the device. This is where a step waits for the device, once.
        """
        if world_size() == 1:
            return self.number, bool(broken)
        flags = torch.stack([torch.full((), float(self.number), device=broken.device), broken.float()])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        number, anywhere = flags.tolist()
        return int(number), bool(anywhere)
