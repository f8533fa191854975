"""Storages for tests: one in memory that fails when it is told to, and an S3 server on this machine."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from domains.remote import storage
from domains.remote.place import Url, to_place


class Troubled(MemoryFileSystem):
    """memory:// as another scheme: `errors` are raised one by one, by whichever call reads or writes an object whose name holds `only`."""

    protocol = "troubled"
    cachable = False
    errors: ClassVar[list[Exception]] = []  # shared by all instances, as `store` is
    calls: ClassVar[list[str]] = []
    only = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("troubled://", "memory://"))

    def _pass(self, what: str, path: str) -> None:
        Troubled.calls.append(f"{what} {path}")
        if Troubled.errors and Troubled.only in path:
            raise Troubled.errors.pop(0)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._pass("read", path)
        return super().cat_file(path, start=start, end=end, **kwargs)

    def put_file(self, lpath, rpath, **kwargs):
        self._pass("put", rpath)
        return super().put_file(lpath, rpath, **kwargs)


fsspec.register_implementation("troubled", Troubled, clobber=True)


@contextmanager
def in_memory(monkeypatch: pytest.MonkeyPatch, scheme: str = "troubled") -> Iterator[Url]:
    """A new empty folder of a storage in memory; pauses between attempts are not waited for."""
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    Troubled.errors, Troubled.calls, Troubled.only = [], [], ""
    folder = to_place(f"{scheme}://{uuid.uuid4().hex}")
    assert isinstance(folder, Url)
    yield folder
    Troubled.errors = []
    system = MemoryFileSystem()
    if system.exists(f"/{folder.host}"):
        system.rm(f"/{folder.host}", recursive=True)


def fill(url: Url, files: dict[str, bytes]) -> None:
    """Objects below `url`, by their relative names."""
    for name, data in files.items():
        path = f"/{url.host}/{url.path}/{name}".replace("//", "/")
        MemoryFileSystem().makedirs(path.rpartition("/")[0], exist_ok=True)
        MemoryFileSystem().pipe_file(path, data)


def held(url: Url) -> dict[str, bytes]:
    """What lies below `url`."""
    root = f"/{url.host}/{url.path}".rstrip("/")
    return {name[len(root) + 1 :]: MemoryFileSystem().cat_file(name) for name in MemoryFileSystem().find(root)}


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server of this process; gives the environment by which it is reached. Skips where moto or s3fs is absent."""
    server = pytest.importorskip("moto.server", reason="moto is not installed (extra dev)", exc_type=ImportError)
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)", exc_type=ImportError)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "AKIATESTKEY", "AWS_SECRET_ACCESS_KEY": "TESTSECRETKEY",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
    finally:
        running.stop()
