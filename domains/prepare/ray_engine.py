"""`--engine ray`: the pool of `pool.run`, spread over the machines of a Ray cluster.

The driver hands out files and keeps the journal, as the local pool's caller does; workers read sources and write frames, under the same paths on
every machine. Files travel by name only. What a task holds, the pseudonym key included, goes from the driver's memory to a worker's within a
call; Ray's object store, its logs and its tables never see it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from domains.errors import ConfigError, VfmError
from domains.prepare.output import LOCK
from domains.prepare.pool import TRIES, Loss, Work
from domains.prepare.ray_worker import Greeting, Needs, Reply, Worker, versions
from domains.prepare.source import Task

# Arguments of a call above 100 KB would be put into the object store, which may be written to disk; the pieces of a task stay below.
PIECE = 50_000
START = 300.0  # seconds in which at least one worker of a cluster must have started
SAME = "Every machine needs the source and the output under the same path, for the same user (docs/prepare.md)"


class Cluster:
    """An engine (see `pool.Engine`). cores: how many workers there is room for now."""

    def __init__(self, cores: int) -> None:
        self.cores = cores

    @classmethod
    def here(cls) -> Cluster:
        """The one that this process is in."""
        import ray

        return cls(max(1, int(ray.cluster_resources().get("CPU", 0))))

    def __call__(
        self, work: Work, tasks: Sequence[Any], workers: int, patience: float = 60.0
    ) -> Iterator[tuple[int, Any | Loss]]:
        """As `pool.run`, in workers of the cluster. A worker that dies, or whose machine does, has its task done again by another.

        Raises ConfigError where a machine cannot do the work: it sees other folders, or has other versions installed.
        """
        return _Shift(work, tasks, workers, patience, _needs(tasks)).run()


def _needs(tasks: Sequence[Any]) -> list[Needs]:
    """What workers look for before a task: the source, and a token in the lock of the output. For tasks that are no files: nothing."""
    token = secrets.token_hex(16)
    found = []
    for out in {task.out for task in tasks if isinstance(task, Task) and task.out is not None}:
        (out / LOCK).write_text(token, encoding="ascii")
        (out / "frames").mkdir(exist_ok=True)
    for task in tasks:
        if not isinstance(task, Task):
            found.append(Needs())
            continue
        readable = str(task.path) if task.source.remote is None else ""  # what is at a URL is asked for there
        if task.out is None:
            found.append(Needs(writable=(str(task.scratch),), readable=readable))
        else:
            folders = (str(task.out / "frames"), str(task.scratch))
            found.append(Needs(str(task.out / LOCK), token, folders, readable))
    return found


class _Slot:
    """A worker, and the call that is under way. number: of its task, None while it starts or has none."""

    def __init__(self, actor: Any, call: Any) -> None:
        self.actor, self.call = actor, call
        self.number: int | None = None
        self.machine = ""


class _Shift:
    """One call of the engine."""

    def __init__(self, work: Work, tasks: Sequence[Any], workers: int, patience: float, needs: list[Needs]) -> None:
        import ray

        self._ray, self._work, self._tasks, self._workers = ray, work, tasks, workers
        self._patience, self._needs = patience, needs
        self._ours = versions()
        self._waiting = deque(range(len(tasks)))
        self._kills: Counter[int] = Counter()
        self._stillborn = 0  # workers that died at their start, one after the other
        self._crew: list[_Slot] = []
        self._since = time.monotonic()

    def run(self) -> Iterator[tuple[int, Any | Loss]]:
        """See `pool.run`."""
        try:
            while self._waiting or any(slot.number is not None for slot in self._crew):
                self._staff()
                for slot in self._reporting():
                    found = self._hear(slot)
                    if found is not None:
                        yield found
        finally:
            self._end()

    def _staff(self) -> None:
        """A task for everyone who has none; as many workers as there are tasks for."""
        for slot in [slot for slot in self._crew if slot.machine and slot.number is None]:
            if self._waiting:
                self._give(slot, self._waiting.popleft())
            else:
                self._dismiss(slot)
                self._crew.remove(slot)
        starting = sum(not slot.machine for slot in self._crew)
        while len(self._crew) < self._workers and starting < len(self._waiting):
            actor = self._ray.remote(Worker).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD").remote()
            self._crew.append(_Slot(actor, actor.greet.remote(self._work.__module__, self._patience)))
            starting += 1

    def _reporting(self) -> list[_Slot]:
        """Those whose call is over."""
        calls = {slot.call: slot for slot in self._crew}
        ready, _ = self._ray.wait(list(calls), timeout=1.0)
        if ready:
            ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        elif not any(slot.machine for slot in self._crew) and time.monotonic() - self._since > START:
            do = "Is the cluster full, or without a CPU? See: ray status"
            raise VfmError(f"no worker of the Ray cluster has started in {START:g} s", do=do)
        return [calls[call] for call in ready]

    def _hear(self, slot: _Slot) -> tuple[int, Any | Loss] | None:
        """What a worker has to say; (task number, result) where a task is over."""
        try:
            said = self._ray.get(slot.call)
        except self._ray.exceptions.RayTaskError as error:  # not of a file: those are answers
            do = "Is the same vfm installed on every machine?"
            raise VfmError(f"a worker of the Ray cluster cannot work ({short(error)})", do=do) from None
        except self._ray.exceptions.RayError as error:  # it died, or its machine, or it cannot be reached
            return self._lost(slot, error)
        if isinstance(said, Greeting):
            self._stillborn, slot.machine = 0, said.machine
            self._compare(said)
            return None
        number, slot.number, self._since = slot.number, None, time.monotonic()
        assert isinstance(said, Reply)
        assert number is not None
        if said.failed:
            raise VfmError(f"{slot.machine}: {said.failed}")
        if said.away:
            if not (self._needs[number].readable and self._needs[number].missing()):
                raise ConfigError(f"the worker on {slot.machine} {said.away}", do=SAME)
            # The file is away for everyone: any worker says what that makes of it.
            self._needs[number] = dataclasses.replace(self._needs[number], readable="")
            self._give(slot, number)
            return None
        return number, said.result if isinstance(said.result, str) else pickle.loads(said.result)

    def _compare(self, said: Greeting) -> None:
        for name, version in said.versions.items():
            if version != self._ours.get(name):
                what = f"{said.machine} has {name} {version}, this machine {self._ours.get(name)}"
                raise ConfigError(what, do="Install the same on every machine: the bytes would depend on who worked")

    def _give(self, slot: _Slot, number: int) -> None:
        blob = pickle.dumps((self._work, self._tasks[number]))
        pieces = [blob[at : at + PIECE] for at in range(0, len(blob), PIECE)]
        slot.number, slot.call = number, slot.actor.do.remote(self._needs[number], *pieces)

    def _lost(self, slot: _Slot, error: Exception) -> tuple[int, Loss] | None:
        self._crew.remove(slot)
        self._dismiss(slot)  # should it still live
        if slot.number is None:
            self._stillborn += 1
            if self._stillborn > TRIES + self._workers:
                raise VfmError(
                    f"workers of the Ray cluster die at their start ({short(error)})",
                    do="Is the same vfm installed there?",
                )
            return None
        self._kills[slot.number] += 1
        if self._kills[slot.number] >= TRIES:
            return slot.number, "killed"
        self._waiting.appendleft(slot.number)
        return None

    def _end(self) -> None:
        """Everyone goes; who was at work is waited for, so that nothing is written behind our back."""
        for slot in self._crew:
            self._dismiss(slot)
        calls = [slot.call for slot in self._crew if slot.number is not None]
        if calls:
            with contextlib.suppress(Exception):
                self._ray.wait(calls, num_returns=len(calls), timeout=5)

    def _dismiss(self, slot: _Slot) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(slot.actor)


def short(error: Exception) -> str:
    """The last line of what Ray has to say: above it stand its stack traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:160] if lines else ''}"
