"""Two machines on one: network namespaces joined by a cable. They share files and cores, and reach one another through the cable alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CARD = "vfm0"  # the same name on both machines
NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class NotPermitted(Exception):
    """Why there can be no namespaces here."""


@dataclass(frozen=True)
class Machine:
    """One end of the cable."""

    namespace: str
    address: str

    def within(self, *words: str) -> list[str]:
        """A command line that runs `words` there."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def enter(self) -> None:
        """Move this process there; it has one thread."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.namespace}", "rb") as place:
            if libc.setns(place.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        os.environ["GLOO_SOCKET_IFNAME"] = CARD  # a host name would lead to an address that is not here

    def sent(self) -> int:
        """Bytes that have left through the cable, headers included."""
        file = f"/sys/class/net/{CARD}/statistics/tx_bytes"
        return int(subprocess.run(self.within("cat", file), capture_output=True, text=True, check=True).stdout)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """They are gone afterwards. Raises NotPermitted."""
    if not shutil.which("ip"):
        raise NotPermitted("two machines need iproute2's ip")
    machines = tuple(Machine(f"vfm{os.getpid()}{end}", f"10.77.0.{number}") for number, end in enumerate("ab", start=1))
    first, second = machines
    try:
        for one in machines:
            ip("netns", "add", one.namespace)
        ip(
            "link",
            "add",
            CARD,
            "netns",
            first.namespace,
            "type",
            "veth",
            "peer",
            "name",
            CARD,
            "netns",
            second.namespace,
        )
        for one in machines:
            ip("-n", one.namespace, "addr", "add", f"{one.address}/24", "dev", CARD)
            ip("-n", one.namespace, "link", "set", CARD, "up")
            ip("-n", one.namespace, "link", "set", "lo", "up")
        yield first, second
    finally:
        for one in machines:
            if Path(f"/run/netns/{one.namespace}").exists():
                subprocess.run(["ip", "netns", "del", one.namespace], check=False)


def ip(*words: str) -> None:
    """Raises NotPermitted with ip's own reason."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermitted(f"network namespaces are not permitted here: {done.stderr.strip().splitlines()[-1:]}")
