"""Whether a run trains, ended, and how: what the run says of itself in status.json, and what the lock of its folder shows.

A run that is killed cannot write that it was. So "running" is believed only while a process holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domains.errors import AlarmError, VfmError
from recipes.runs.metrics import METRICS, read_json

STATUS, LOCK, RECORD = "status.json", ".lock", "record.json"
RUNNING, FINISHED, INTERRUPTED, ALARM, ERROR = "running", "finished", "interrupted", "stopped by an alarm", "error"
STATES = (RUNNING, FINISHED, INTERRUPTED, ALARM, ERROR)
SILENCE = 600.0  # seconds
KILLED = "its process was killed, or the machine went down; the last checkpoint is what is left"


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_status(run: Path, **values: Any) -> None:
    """Change some values of status.json. A disk that refuses is passed over: the run's own error says it better."""
    with contextlib.suppress(OSError):
        draft = run / f"{STATUS}.tmp"
        draft.write_text(json.dumps({**read_json(run / STATUS), **values}) + "\n", encoding="utf-8")
        draft.replace(run / STATUS)


@contextlib.contextmanager
def recorded(run: Path, *, main: bool = True) -> Iterator[None]:
    """While entered, the run says that it runs; afterwards how it ended, whatever way that was. main: the process that speaks for its group."""
    if main:
        write_status(
            run, state=RUNNING, began=read_json(run / STATUS).get("began") or now(), ended=None, exit_code=None, why=""
        )
    try:
        yield
    except BaseException as error:
        if main:
            state, code, why = ending(error)
            write_status(run, state=state, ended=now(), exit_code=code, why=why)
        raise
    if main:
        write_status(run, state=FINISHED, ended=now(), exit_code=0)


def ending(error: BaseException) -> tuple[str, int, str]:
    """(state, exit code, why) of a run that ended with `error`."""
    if isinstance(error, AlarmError):
        return ALARM, error.exit_code, error.what
    if isinstance(error, VfmError):
        return (INTERRUPTED if error.exit_code > 128 else ERROR), error.exit_code, error.what
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, 130, "stopped by a second Ctrl-C, without saving"
    return ERROR, 1, f"an error that should not happen ({type(error).__name__})"


def locked(run: Path) -> bool | None:
    """Whether a process holds the lock of a run folder; None where its file system has no locks.

    Only asks: taking it, if for a moment, would turn away a run that begins. A process is not told of a lock of its own.
    """
    # struct flock: type, whence, start, length, pid; macOS has the last three first.
    layout, order = ("hhqqi", 0) if sys.platform.startswith("linux") else ("qqihh", 3)
    whole = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if order == 0 else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    try:
        with (run / LOCK).open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *whole))
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks
        return None
    return bool(struct.unpack(layout, answer)[order] != fcntl.F_UNLCK)


def state_of(run: Path) -> tuple[str, str]:
    """(state, why) of a run; why is "" where there is nothing to say."""
    said = read_json(run / STATUS)
    held = locked(run)
    if held or (held is None and said.get("state") == RUNNING and is_fresh(run)):
        return RUNNING, ""
    if (run / RECORD).is_file():
        return FINISHED, ""
    state, why = said.get("state"), str(said.get("why") or "")
    if state in (INTERRUPTED, ALARM, ERROR):
        return str(state), why
    return INTERRUPTED, KILLED


def is_fresh(run: Path) -> bool:
    """Whether a run has written within the last minutes: all that can be told where there are no locks."""
    with contextlib.suppress(OSError):
        newest = max((path.stat().st_mtime for path in (run / METRICS, run / STATUS) if path.exists()), default=0.0)
        return time.time() - newest < SILENCE
    return False
