"""Worker processes that may die: a decoder that crashes or hangs costs the file it was at, and nothing else.

A worker that is killed from outside (by a person, or by the kernel when memory is short) is no fault of its file, which is done again; a file
at which workers are killed again and again is given up.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Generic, Literal, Protocol, TypeVar

from domains.errors import VfmError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

Task = TypeVar("Task")
Result = TypeVar("Result")
Beat = Callable[[], None]
Work = Callable[[Any, Beat], Any]
Loss = Literal["crashed", "hung", "killed"]

# The fork server starts clean (no threads, no CUDA, no locks of the caller) and hands out workers in milliseconds.
METHOD = "spawn" if sys.platform == "win32" else "forkserver"
TRIES = 3  # times that workers may be killed at one task
START = 60.0  # seconds that a worker may take to start on a busy machine: no fault of its task
KILLED = -9  # exit code of a process that was killed: no decoder ends itself that way


class Engine(Protocol):
    """Who does the work: `run` on this machine, `ray_engine.Cluster` on several."""

    def __call__(
        self, work: Work, tasks: Sequence[Any], workers: int, patience: float = 60.0
    ) -> Iterator[tuple[int, Any | Loss]]:
        """See `run`."""


def run(work: Work, tasks: Sequence[Any], workers: int, patience: float = 60.0) -> Iterator[tuple[int, Any | Loss]]:
    """Yields (task number, work(task, beat)) as results come in; "crashed" or "hung" where a task took its worker
    along, "killed" where `TRIES` workers were killed at it.

    work: a function of an importable module; it calls `beat()` now and then, and is taken for hung after `patience`
    seconds without one. Exceptions of `work` are not caught here: it must return them as results. Closing the generator
    ends every worker.
    """
    context = _context(work)
    waiting = deque(enumerate(tasks))
    kills: Counter[int] = Counter()
    crew: list[_Worker] = []
    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                crew.append(_Worker(context, work))
                crew[-1].give(*waiting.popleft())
            connection.wait([worker.pipe for worker in crew], timeout=1.0)
            for worker in list(crew):
                done, result = worker.look(patience)
                if not done:
                    continue
                if isinstance(result, _Killed) and not _given_up(kills, worker.number):
                    waiting.appendleft((worker.number, tasks[worker.number]))
                else:
                    yield worker.number, "killed" if isinstance(result, _Killed) else result
                if worker.alive and waiting:
                    worker.give(*waiting.popleft())
                else:
                    worker.end()
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.end(kill=True)


class Single:
    """One worker process for one task after the other, made anew when a task has taken it along. For an engine that hands out tasks itself."""

    def __init__(self, work: Work, patience: float = 60.0, preload: Sequence[str] = ()) -> None:
        """work, patience: see `run`. preload: modules that it will need."""
        self._work, self._patience, self._context = work, patience, _context(work, preload)
        self._worker: _Worker[Any, Any] | None = None

    def do(self, task: Any) -> Any | Loss:
        """What `run` yields for the task."""
        kills: Counter[int] = Counter()
        while True:
            self._worker = worker = self._worker or _Worker(self._context, self._work)
            worker.give(0, task)
            done, result = False, None
            while not done:
                connection.wait([worker.pipe], timeout=1.0)
                done, result = worker.look(self._patience)
            if not worker.alive:
                self.end()
            if not isinstance(result, _Killed):
                return result
            if _given_up(kills, 0):
                return "killed"

    def end(self) -> None:
        """Let go of the process."""
        if self._worker is not None:
            self._worker.end(kill=True)
            self._worker = None


def _context(work: Work, preload: Sequence[str] = ()) -> Any:
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([work.__module__, *preload])
    return context


class _Killed:
    """The worker was killed from outside."""


def _given_up(kills: Counter[int], number: int) -> bool:
    kills[number] += 1
    return kills[number] >= TRIES


class _Worker(Generic[Task, Result]):
    def __init__(self, context: Any, work: Callable[[Task, Beat], Result]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # so that the death of the worker is the end of the pipe
        self.alive, self.ready = True, False
        self.number, self.since = -1, 0.0

    def give(self, number: int, task: Task) -> None:
        self.number, self.since = number, time.monotonic()
        with contextlib.suppress(OSError):  # it died while idle: `look` says so
            self.pipe.send(task)

    def look(self, patience: float) -> tuple[bool, Result | Loss | _Killed | None]:
        """(True, result) when its task is over."""
        try:
            while self.pipe.poll():
                kind, value = self.pipe.recv()
                self.ready = True
                if kind == "result":
                    return True, value
                self.since = time.monotonic()
        except (EOFError, OSError):
            self.alive = False
            self.process.join(timeout=5)
            if self.process.exitcode == KILLED:
                return True, _Killed()
            if not self.ready:  # it never came to the file: this must not be blamed on it
                do = "A script that calls this needs: if __name__ == '__main__'"
                raise VfmError("a worker process could not start (its own message is above)", do=do) from None
            return True, "crashed"
        if time.monotonic() - self.since > (patience if self.ready else max(patience, START)):
            self.end(kill=True)
            return True, "hung"
        return False, None

    def end(self, kill: bool = False) -> None:
        self.alive = False
        if kill:
            self.process.kill()
        self.pipe.close()
        self.process.join(timeout=5)


def _serve(pipe: connection.Connection, work: Callable[[Any, Beat], Any]) -> None:
    """A worker's life: tasks in, results out, until the pipe closes."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it ends us
    pipe.send(("beat", None))  # ready
    last = 0.0

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            pipe.send(("beat", None))

    try:
        while True:
            pipe.send(("result", work(pipe.recv(), beat)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    """Has the kernel end this process (SIGIO) when the parent's end of a pipe is closed: in an endless loop of a decoder nobody asks."""
    parent = multiprocessing.parent_process()
    if fcntl is None or parent is None:
        return
    with contextlib.suppress(OSError):  # a system that does not signal for pipes
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if connection.wait([parent.sentinel], timeout=0):  # too late
        os._exit(1)
