"""A worker of `--engine ray`: on whichever machine Ray puts it, one process of the local pool that looks at one file after the other.

The actor itself stays small and imports no decoder: what it passes on to that process and back are bytes.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import sys
from dataclasses import dataclass
from importlib import metadata

from domains.errors import VfmError
from domains.prepare.pool import Beat, Loss, Single

# What decides about the bytes that are written.
DECIDING = (
    "vfm", "numpy", "opencv-python-headless", "av", "pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg", "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """What a machine must see to do a task.

    lock, token: a file and the text in it: the output is the very one that the driver writes. writable: folders. readable: the source.
    """

    lock: str = ""
    token: str = ""
    writable: tuple[str, ...] = ()
    readable: str = ""

    def missing(self) -> str:
        """What this process does not see; "" where all is there."""
        if self.lock:
            try:
                with open(self.lock, encoding="ascii") as file:
                    there = file.read()
            except (OSError, UnicodeDecodeError):
                return f"does not see {os.path.dirname(self.lock)}"
            if there != self.token:
                return f"sees another folder as {os.path.dirname(self.lock)}"
        for folder in self.writable:
            if not os.access(folder, os.W_OK | os.X_OK):
                return f"does not see {folder}, or may not write there"
        if self.readable and not os.access(self.readable, os.R_OK):
            return f"does not see {self.readable}, or may not read it"
        return ""


@dataclass(frozen=True)
class Greeting:
    """Where a worker is, and what it is made of (`versions`)."""

    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """result: of the task, pickled, or how it took its process along. away: what this machine does not see. failed: why no process starts."""

    result: bytes | Loss = b""
    away: str = ""
    failed: str = ""


class Worker:
    """The Ray actor. Native code runs in a process of its own below it (`pool.Single`): a file that crashes or hangs is answered as the local
    pool answers it, and the actor itself dies for reasons from outside only.
    """

    def greet(self, module: str, patience: float) -> Greeting:
        """The first call. module: of the work, for that process to import. patience: see `pool.run`."""
        hush()
        # Processes below would run the script of Ray's own workers first: multiprocessing thinks that it is the program.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._single = Single(packed, patience, preload=[module])
        return Greeting(socket.gethostname(), versions())

    def do(self, needs: Needs, *pieces: bytes) -> Reply:
        """pieces: of the pickled (work, task)."""
        away = needs.missing()
        if away:
            return Reply(away=away)
        try:
            return Reply(self._single.do(b"".join(pieces)))
        except VfmError as error:
            return Reply(failed=str(error))


def packed(blob: bytes, beat: Beat) -> bytes:
    """The work of the process below an actor."""
    work, task = pickle.loads(blob)
    return pickle.dumps(work(task, beat))


def hush() -> None:
    """Ray keeps what its workers print in files of the machine. Libraries of decoders print names and headers: nothing is kept."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def versions() -> dict[str, str]:
    """Name -> version of all that decides about the bytes of a prepared folder."""
    found = {"python": platform.python_version(), "processor": platform.machine()}
    for name in DECIDING:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
