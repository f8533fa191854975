"""Work for a cluster's workers that takes them along, and a look at processes. Imported by every worker: it stays small."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from domains.prepare.pool import Beat


def work(task: str, beat: Beat) -> str:
    """Runs in a process below an actor. "once FILE", "always FILE": the actor is killed, FILE counts the tries; "die", "hang", "large"."""
    kind, _, note = task.partition(" ")
    if note:
        with open(note, "a") as file:
            file.write(kind[0])
        if kind == "always" or Path(note).stat().st_size == 1:
            os.kill(parent(parent(os.getpid())), signal.SIGKILL)  # the fork server's parent is the actor
            time.sleep(60)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(60)
    return kind.upper() + "!" * (300_000 if kind == "large" else 0)


def parent(pid: int) -> int:
    """Who started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def below(pid: int) -> dict[int, str]:
    """Processes that descend from one, with their command lines."""
    found: dict[int, str] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = parent(int(entry.name))
            found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:
            continue

    def descends(one: int) -> bool:
        while one in parents:
            one = parents[one]
            if one == pid:
                return True
        return False

    return {one: line for one, line in found.items() if descends(one)}


def running(pid: int) -> bool:
    """Whether a process is there and no mere entry of the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
