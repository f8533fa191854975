"""What a run measures of itself between two lines of its log: losses, speed, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from recipes.parts.distributed import global_mean
from recipes.training.phases import Phases


class Meter:
    """Sums since the last `read`. Tensors stay on the device until then: no synchronisation per step.

    flops: operations of one forward and backward pass on this device, None where they could not be counted. peak: what the device can do in a
    second, None where it is not known. processes: that share the work.
    """

    def __init__(self, phases: Phases, processes: int, flops: int | None, peak: float | None) -> None:
        self.phases = phases
        self._processes, self._flops, self._peak = processes, flops, peak
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._norms: list[Tensor] = []
        self._forwards = self._clips = 0
        self._since, self._worked = time.perf_counter(), time.process_time()

    def add(self, losses: Mapping[str, Tensor], clips: int) -> None:
        """One forward and backward pass over `clips` samples of this process."""
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._forwards, self._clips = self._forwards + 1, self._clips + clips * self._processes

    def add_norm(self, norm: Tensor) -> None:
        """The gradient's norm of one optimiser step."""
        self._norms.append(norm.detach().float())

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """(means of losses and `grad_norm` over all ranks, speed), and start anew.

        Speed: clips_per_second of all processes; data_wait and share_<other phase> of the time; device_seconds, without those of waiting; tflops,
        operations of this device in 1e12 a second; mfu, in parts of what it can do.
        """
        found = {name: value / self._forwards for name, value in self._sums.items()}
        if self._norms:
            found["grad_norm"] = torch.stack(self._norms).mean()
        # Of all ranks, in one wait for the device.
        means = (
            dict(zip(found, global_mean(torch.stack(list(found.values())).unsqueeze(0)).tolist(), strict=True))
            if found
            else {}
        )
        shares = self.phases.shares()
        seconds = max(1e-9, time.perf_counter() - self._since)
        speed = {"clips_per_second": self._clips / seconds, "data_wait": shares.pop("data")}
        speed |= {f"share_{phase}": share for phase, share in shares.items()}
        # Of a CPU that others use too, what it worked for this process; a GPU is this process's own.
        worked = seconds if self.phases.on_gpu else time.process_time() - self._worked
        speed["device_seconds"] = min(seconds * (1 - speed["data_wait"]), worked)
        if self._flops:
            rate = self._flops * self._forwards / seconds
            speed["tflops"] = rate / 1e12
            if self._peak:
                speed["mfu"] = rate / self._peak
        self._begin()
        return means, speed
