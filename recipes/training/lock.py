"""One run a folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO

from domains.errors import ConfigError, StorageError
from recipes.runs.status import LOCK

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems, as they are mounted


class FolderLock:
    """Held from `take` to `release`, or to the end of the process that took it, however it ends: nothing to clean up after a kill.

    A POSIX lock, also where a folder is shared over NFS. It belongs to the process alone: with flock, loader processes would inherit it,
    and those outlive a killed trainer by some seconds in which the run could not be resumed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.enforced = True  # False where the file system has no locks
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Raises ConfigError while another process holds it, StorageError where the folder cannot be written."""
        while self._file is None:
            try:
                file = (self.folder / LOCK).open("a+", encoding="ascii")
            except OSError as error:
                raise StorageError(f"cannot be written ({error.strerror})", where=self.folder) from None
            self._file = file if self._locked(file) else None
            if self._file is None:
                file.close()
        if self.enforced:
            self._sign(self._file)

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            (self.folder / LOCK).unlink(missing_ok=True)  # while held: nobody may lock a file that is about to go
            self._file.close()
            self._file = None

    def _locked(self, file: IO[str]) -> bool:
        """Lock `file`. False where its last holder has removed it meanwhile: the one that counts is another file of the same name."""
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            who = holder(file)
            file.close()
            what = f"another run is going on in this folder ({who})"
            raise ConfigError(what, where=self.folder, do="Wait for it, stop it, or choose another --out") from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                file.close()
                raise StorageError(f"cannot be locked ({error.strerror})", where=self.folder) from None
            self.enforced = False
        try:
            return os.path.samestat(os.fstat(file.fileno()), (self.folder / LOCK).stat())
        except FileNotFoundError:
            return False

    @staticmethod
    def _sign(file: IO[str]) -> None:
        """Leave who holds it, for the line that others are refused with; a full disk is no reason to stop here."""
        try:
            file.truncate(0)
            file.write(f"{os.getpid()} {boot()}\n")
            file.flush()
        except OSError:
            pass


def holder(file: IO[str]) -> str:
    """Who holds a lock, without the name of a machine: process N, or that it is elsewhere."""
    try:
        file.seek(0)
        process, _, where = file.read().strip().partition(" ")
    except OSError:
        process, where = "", ""
    if not process.isdigit():
        return "it has just begun"
    return f"process {process}" if where == boot() else "on another machine"


def boot() -> str:
    """A random number that tells this start of this machine from others; "" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
