"""TensorBoard's event files, written in place: no thread to fail behind the run's back, and no name of a machine in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Board:
    """Scalars of one part of a run, in a new file under `folder`. What an earlier part drew from step `first` on is hidden.

    Raises OSError where the disk refuses.
    """

    def __init__(self, folder: Path, first: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The name is TensorBoard's own pattern; its fourth part is the machine's name there, which may be a person's or a room's.
        self._file = (folder / f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.vfm").open("xb")
        self._writer = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first:
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(wall_time=time.time(), step=first + 1, session_log=start))
        self._file.flush()

    def add(self, values: Mapping[str, float], step: int) -> None:
        """One point on the curve of each name."""
        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=found)))
        self._file.flush()

    def close(self) -> None:
        """No more points."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
