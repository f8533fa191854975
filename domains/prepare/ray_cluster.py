"""The Ray cluster that `--engine ray` works on: one of this machine alone, for a while, or one that it has joined.

One of our own is closed to others, has no dashboard, and leaves no file. Nothing is sent to Ray's makers in either case.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domains.errors import ConfigError
from domains.prepare.ray_engine import Cluster, short

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

STORE = 80 << 20  # bytes of the object store of a cluster of our own, the least that Ray takes: nothing goes in
LONGEST = 40  # characters of the folder of sockets: their paths end at 107


@contextlib.contextmanager
def cluster(address: str | None, cores: int) -> Iterator[Cluster]:
    """A running cluster for `prepare(engine=...)`.

    address: HOST:PORT (or "auto") of one that this machine has joined; None: one of `cores` worker processes is started on this machine, for
    this process alone, and ended with it. Where this process is in a cluster already, that one is used. Nothing is sent to Ray's makers. Raises
    ConfigError where Ray is not installed or does not answer.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if fcntl is None:
        raise ConfigError("--engine ray works on Linux and macOS", do="Use --engine local")
    address = None if address in ("", "local") else address
    if address is not None and address != "auto":
        _knock(address)
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed", do="Install the extra: pip install 'vfm[ray]'") from None
    if ray.is_initialized():
        yield Cluster.here()
        return
    with contextlib.ExitStack() as stack:
        stack.callback(_read_token)
        own = {} if address is not None else _own(stack, cores)
        _read_token()
        stack.enter_context(_discreet())
        before = signal.getsignal(signal.SIGTERM)
        stack.callback(ray.shutdown)
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:
            do = (
                f"Join this machine to it: ray start --address {address}" if address else "--engine local does the same"
            )
            raise ConfigError(f"Ray does not start ({short(error)})", where=address, do=do) from None
        _mind_sigterm(stack, before)
        yield Cluster.here()


def _knock(address: str) -> None:
    """Raises ConfigError where nobody answers: Ray itself would try for minutes."""
    if address.startswith("ray://"):
        do = "Start vfm on a machine of the cluster, with --ray-address HOST:6379"
        raise ConfigError("Ray's client passes names and keys through the object store", where=address, do=do)
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise ConfigError("no address of a Ray cluster", where=address, do="Expected HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster ({short(error)})", where=address, do="Start one: ray start --head") from None


def _own(stack: contextlib.ExitStack, cores: int) -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster that is this process's own: closed to others, without a dashboard, its files gone afterwards."""
    folder = own_folder(stack, Path(tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST else "/tmp"))
    # Its ports are open to the network: who does not know the token is turned away.
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
        stack.callback(_put_back, name, os.environ.get(name))
        os.environ[name] = value
    return {
        "num_cpus": cores, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE,
        "_temp_dir": f"{folder}/r", "_node_ip_address": "127.0.0.1", "_system_config": {"worker_niceness": 0},  # as ours, not 15
    }  # fmt: skip


def own_folder(stack: contextlib.ExitStack, root: Path) -> Path:
    """A new folder in `root` that only we can enter (Ray opens its own to all), gone with the stack; those of processes that were killed go now."""
    folder = Path(tempfile.mkdtemp(prefix="vfm-ray-", dir=root))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    lock = stack.enter_context((folder / "lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    for old in root.glob("vfm-ray-*/lock"):
        with contextlib.suppress(OSError), old.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old.parent, ignore_errors=True)
    return folder


def _read_token() -> None:
    """Ray has noted, when it was imported, how things stood then: whether there is a token, and which."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextlib.contextmanager
def _discreet() -> Iterator[None]:
    """Ray's table of jobs does not show our command line: the source, or the place of the key, may bear a name. And what Ray reports of
    machines that died is not printed among our results, where it has no other way off.
    """
    from ray._private import utils, worker

    kept = [
        (place, name, getattr(place, name))
        for place, name in ((utils, "get_entrypoint_name"), (worker, "print_to_stdstream"))
    ]
    utils.get_entrypoint_name = lambda: "vfm data prepare"
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        for place, name, value in kept:
            setattr(place, name, value)


def _mind_sigterm(stack: contextlib.ExitStack, before: Any) -> None:
    """Ray's own answer to SIGTERM is exit code 15. Where nobody else has one, it ends us as a signal does, the cluster put away first."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before if callable(before) else lambda *_: sys.exit(128 + signal.SIGTERM))
        stack.callback(signal.signal, signal.SIGTERM, before)
