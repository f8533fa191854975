"""How many threads a probe takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """While it lasts, products and loops take one thread; also as a decorator. Those of a probe are many and small: threads wait for each other
    longer than they work, many times longer where several processes do so (benchmarks/probe.py)."""
    with _threads().limit(limits=1):
        yield


@cache
def _threads() -> ThreadpoolController:
    import sklearn.linear_model  # noqa: F401  # brings libraries with threads of their own, which are looked for once

    return ThreadpoolController()
