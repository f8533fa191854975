"""Who does the work of `vfm data prepare`: processes of this machine, or of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from domains.prepare.pool import Engine

F = TypeVar("F", bound=Callable[..., Any])


def engine_options(command: F) -> F:
    """--engine, --ray-address."""
    engine = click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="ray: on several machines."
    )  # fmt: skip
    address = click.option(
        "--ray-address", default=None, help="HOST:PORT of a Ray cluster [$RAY_ADDRESS, else this machine alone]."
    )
    return engine(address(command))


@contextlib.contextmanager
def hands(engine: str, address: str | None, workers: int | None) -> Iterator[tuple[Engine | None, int]]:
    """Who does the work (None: processes of this machine), and how many at a time. Raises UsageError, ConfigError."""
    from domains.machine import cores

    if engine == "local":
        if address is not None:
            raise click.UsageError("--ray-address goes with --engine ray")
        yield None, workers or cores()
        return
    from domains.prepare.ray_cluster import cluster

    with cluster(address or os.environ.get("RAY_ADDRESS"), workers or cores()) as found:
        yield found, workers or found.cores
