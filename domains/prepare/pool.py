"""Worker processes that may die: a decoder that crashes or hangs costs the file it was at, and nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Generic, Literal, TypeVar

from domains.errors import VfmError

Task = TypeVar("Task")
Result = TypeVar("Result")
Beat = Callable[[], None]
Loss = Literal["crashed", "hung"]

# The fork server starts clean (no threads, no CUDA, no locks of the caller) and hands out workers in milliseconds.
METHOD = "spawn" if sys.platform == "win32" else "forkserver"


def run(
    work: Callable[[Any, Beat], Any], tasks: Sequence[Any], workers: int, patience: float = 60.0
) -> Iterator[tuple[int, Any | Loss]]:
    """Yields (task number, work(task, beat)) as results come in; "crashed" or "hung" where a task took its worker
    along.

    work: a function of an importable module; it calls `beat()` now and then, and is taken for hung after `patience`
    seconds without one. Exceptions of `work` are not caught here: it must return them as results. Closing the generator
    ends every worker.
    """
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([work.__module__])
    waiting = deque(enumerate(tasks))
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
                yield worker.number, result
                if worker.alive and waiting:
                    worker.give(*waiting.popleft())
                else:
                    worker.end()
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.end(kill=True)


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

    def look(self, patience: float) -> tuple[bool, Result | Loss | None]:
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
            if not self.ready:  # it never came to the file: this must not be blamed on it
                do = "A script that calls this needs: if __name__ == '__main__'"
                raise VfmError("a worker process could not start (its own message is above)", do=do) from None
            return True, "crashed"
        if time.monotonic() - self.since > patience:
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
