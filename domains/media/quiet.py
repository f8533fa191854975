"""Decoders that talk: libjpeg and its relatives write to the terminal what a reader says in a reason of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_saved = -1


@contextmanager
def quiet() -> Iterator[None]:
    """What anybody in this process writes to file descriptor 2 meanwhile goes nowhere: C libraries cannot be asked to be silent otherwise.

    Meant for single calls into a decoder. Threads may overlap: the last to leave puts the descriptor back.
    """
    global _inside, _saved
    with _lock:
        if not _inside:
            _saved = _silence()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _saved >= 0:
                os.dup2(_saved, 2)
                os.close(_saved)


def _silence() -> int:
    """A copy of descriptor 2, which now leads nowhere; -1 where there is none to silence (a service without a terminal)."""
    try:
        saved = os.dup(2)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return saved
