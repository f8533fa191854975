"""Tiny runs in processes of their own, started in milliseconds and killed at a chosen point.

A fork server imports torch, transformers and peft once. `run(Job(...))` forks one process a rank from it:

    from kill_factory import Job, Kill, run
    assert run(Job(out, data, "discovr", processes=2), Kill(at=120)).codes == [-9, 6]

The points of a run are the lines of vfm's own training code as it passes them, counted by a trace function: before and after every fsync,
rename, backward and update there is one.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any

from netns_factory import Machine
from objective_factory import SMALL

REPO = Path(__file__).resolve().parents[1]
SAVING = ("training/checkpoint.py", "training/run.py", "training/board.py", "finetune/best.py", "training/lock.py")
TRAIN = {
    "steps": 6, "batch_size": 2, "accumulate": 2, "save_every": 2, "log_every": 1, "monitor_every": 3, "precision": "fp32"
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run: of a method of pretraining, or `finetune`. settings: key=value over what is tiny. patch: see `patched`. machines: over which its
    processes are spread, as many on each; they meet on the first."""

    out: Path
    data: Path
    method: str
    processes: int = 1
    resume: bool = False
    from_step: int | None = None
    settings: tuple[str, ...] = ()
    patch: str = ""
    machines: tuple[Machine, ...] = ()


@dataclass(frozen=True)
class Kill:
    """Signal `number` to rank `rank` at its `at`-th point, of those while something is written if `saving`."""

    at: int
    number: int = signal.SIGKILL
    rank: int = 0
    saving: bool = False


@dataclass
class Ended:
    """How the ranks of a run ended: exit codes, what vfm said, and how many points they passed (all, while saving) if they were counted."""

    codes: list[int]
    lines: list[str] = field(default_factory=list)
    points: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(job: Job, kill: Kill | None = None, timeout: float = 120, *, count: bool = False) -> Ended:
    """Run a job to its end, whatever that is. count: its points, which takes half as long again."""
    server = server_context()
    port = free_port()
    answers = server.SimpleQueue()
    group = [
        server.Process(target=rank_of, args=(job, rank, port, kill, count, answers)) for rank in range(job.processes)
    ]
    for process in group:
        process.start()
    end = time.monotonic() + timeout
    for process in group:
        process.join(max(0.1, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
    ended = Ended([process.exitcode or 0 for process in group])
    while not answers.empty():
        rank, line, points, notes = answers.get()
        ended.lines += [line] if line else []
        if rank == 0:
            ended.points, ended.notes = points, notes
    answers.close()
    return ended


def together(work: Callable[..., None], *arguments: object, processes: int = 2, timeout: float = 300) -> None:
    """work(rank, port, *arguments) in several processes at once; `work` is a function of a test module. What one of them raises is raised here."""
    server = server_context()
    answers = server.SimpleQueue()
    port = free_port()
    group = [server.Process(target=told, args=(answers, work, rank, port, *arguments)) for rank in range(processes)]
    for process in group:
        process.start()
    end = time.monotonic() + timeout
    while any(process.exitcode is None for process in group) and time.monotonic() < end:
        connection.wait([process.sentinel for process in group if process.exitcode is None], timeout=1)
        if any(process.exitcode for process in group):  # nobody waits for those that are left
            break
    for process in group:
        process.kill()
        process.join()
    said = "" if answers.empty() else answers.get()
    assert [process.exitcode for process in group] == [0] * processes, said


def told(answers: Any, work: Callable[..., None], *arguments: object) -> None:
    """What `work` raises is put into words for who started this process."""
    try:
        work(*arguments)
    except BaseException:
        answers.put(traceback.format_exc())
        raise


def free_port() -> int:
    """One that nobody listens on, below those that the system hands out: until the ranks have bound it, none of their connections, nor of the tests
    beside this one, is given it."""
    for _ in range(100):
        port = random.SystemRandom().randrange(12000, 30000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports are all taken")


def server_context() -> Any:
    """A fork server that has imported everything a run needs."""
    paths = [str(REPO), str(REPO / "tests")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    context = multiprocessing.get_context("forkserver")
    jobs = ["recipes.jobs.pretrain", "recipes.jobs.finetune", "recipes.jobs.replay"]
    context.set_forkserver_preload(
        ["kill_factory", "peft", "torch.distributed.fsdp", "torch.distributed.tensor.experimental", *jobs]
    )
    return context


def rank_of(job: Job, rank: int, port: int, kill: Kill | None, count: bool, answers: Any) -> None:
    """One process of a run; its exit code is vfm's."""
    import torch

    from domains.errors import VfmError
    from recipes.training.reporter import SilentReporter

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as ever; not that of this process
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if job.processes > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job.processes), "LOCAL_WORLD_SIZE": str(job.processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    if job.machines:
        each = job.processes // len(job.machines)
        job.machines[rank // each].enter()
        os.environ |= {"LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each)}
        os.environ["MASTER_ADDR"] = job.machines[0].address
    without_pictures()
    code, line, reporter = 0, "", SilentReporter()
    points = Points(kill if kill is not None and kill.rank == rank else None)
    try:
        with patched(job.patch, rank):
            if count or points.kill is not None:
                sys.settrace(points)
            start(job, reporter)
    except VfmError as error:
        code, line = error.exit_code, str(error)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        code, line = 1, f"{type(error).__name__}: {error}"
    finally:
        sys.settrace(None)
    answers.put((rank, line, {"all": points.all, "saving": points.saving}, [*reporter.notes, *reporter.warnings]))
    if code:
        os._exit(code)  # as torchrun ends a rank: without waiting for the others


class Points:
    """Counts lines of vfm's training code, and sends a signal to this process at one of them."""

    def __init__(self, kill: Kill | None) -> None:
        self.kill, self.all, self.saving = kill, 0, 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        """See sys.settrace: called for every Python function, answered with what is called for the lines of those that count."""
        name = frame.f_code.co_filename
        if not name.startswith(f"{REPO}/recipes/") or "/encoders/" in name:
            return None
        return self._saving if name.endswith(SAVING) else self._other

    def _saving(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.saving += 1
            self._point(self.saving, saving=True)
        return self._saving

    def _other(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._point(0, saving=False)
        return self._other

    def _point(self, of_saving: int, saving: bool) -> None:
        self.all += 1
        kill = self.kill
        if kill is not None and kill.at == (of_saving if kill.saving else self.all) and (saving or not kill.saving):
            self.kill = None
            os.kill(os.getpid(), kill.number)


def without_pictures() -> None:
    """Drawing takes several times as long as a run of this size."""
    import recipes.jobs.finetune
    import recipes.jobs.pretrain

    recipes.jobs.finetune.write_evaluation = lambda *_: None
    recipes.jobs.pretrain.draw_curves = lambda *_: None


def tiny_encoder(data: Path) -> Path:
    """A ViT of two narrow blocks beside the prepared folder: vfm-tiny is twenty times as large."""
    from recipes.encoders.base import Geometry
    from recipes.encoders.videomae import fresh_videomae

    folder = data.with_name("encoder")
    if not folder.exists():
        geometry = Geometry(frames=4, size=32, stride=2)
        draft = folder.with_name(f"encoder.{os.getpid()}")
        fresh_videomae(
            geometry, seed=0, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, patch_size=16, tubelet_size=2
        ).save(draft)  # fmt: skip
        with contextlib.suppress(OSError):  # another rank was first
            draft.rename(folder)
    return folder


def start(job: Job, reporter: Any) -> None:
    """The job itself, as the command line would call it."""
    from recipes.config import Layer, parse_assignments, resolve

    base: dict[str, Any] = {
        "data": {"path": str(job.data), "workers": 0}, "clip": {"frames": 4, "size": 32, "stride": 2},
        "encoder": {"name": str(tiny_encoder(job.data))}, "augment": {"weak": {"crop_scales": [1.0, 0.75]}}, "train": TRAIN,
    }  # fmt: skip
    layers = [Layer("test", base), Layer("command line", parse_assignments(job.settings))]
    if job.method == "finetune":
        from recipes.finetune import defaults
        from recipes.jobs.finetune import finetune

        task = {"name": "ef", "labels": f"{job.data}.labels.csv", "folds": 5, "clips_per_video": 1}
        resolved = resolve([defaults(), Layer("task", {"task": task}), *layers])
        finetune(resolved, job.out, resume=job.resume, from_step=job.from_step, reporter=reporter)
        return
    from recipes.jobs.pretrain import pretrain

    base |= {"method": job.method, "objective": SMALL[job.method]}
    pretrain(resolve(layers), job.out, resume=job.resume, from_step=job.from_step, reporter=reporter)


@contextlib.contextmanager
def patched(what: str, rank: int) -> Iterator[None]:
    """Make something go wrong, or be noted; several, with commas between them.

    seen:FILE: every rank writes FILE.RANK.jsonl, the seeds of the samples of each forward pass.
    stop:STEP: rank 0 gets SIGTERM in that step, counted from 1.
    kill-loader:STEP, term-loader:STEP: SIGKILL or SIGTERM to the loader processes; term-all:STEP, int-all:STEP, hup-all:STEP: a signal to
    them and to the run itself.
    fill:STEP:FILE:BYTES: from that step on the disk that FILE is on has BYTES bytes left, FILE having taken the rest.
    limit:STEP:BYTES: from that step on no file may grow beyond BYTES.
    wait:STEP:FILE: that step begins once FILE is there.
    nan-loss:STEP:RANK, nan-gradient:STEP:RANK: that step's loss, or its gradient alone, is not a number on that rank.
    """
    from recipes.training import loop

    for word in filter(None, what.split(",")):
        kind, _, rest = word.partition(":")
        if kind == "seen":
            loop.to_batch = noting(loop.to_batch, Path(f"{rest}.{rank}.jsonl"))
        elif kind == "stop" and rank == 0:
            at_step(int(rest), lambda: os.kill(os.getpid(), signal.SIGTERM))
        elif kind.endswith(("-loader", "-all")):
            run_too = kind.endswith("-all")
            number = getattr(signal, f"SIG{kind.split('-')[0].upper()}")
            at_step(int(rest), lambda n=number, too=run_too: to_loaders(n, too))
        elif kind == "fill":
            step, file, free = rest.split(":")
            at_step(int(step), lambda f=file, b=free: fill(Path(f), int(b)))
        elif kind == "limit":
            step, size = rest.split(":")
            at_step(
                int(step), lambda s=int(size): resource.setrlimit(resource.RLIMIT_FSIZE, (s, resource.RLIM_INFINITY))
            )
        elif kind == "wait":
            step, file = rest.split(":")
            at_step(int(step), lambda f=Path(file): wait_for(f))
        elif kind.startswith("nan-") and rank == int(rest.split(":")[1]):
            at_step(int(rest.split(":")[0]), lambda kind=kind: poison(kind.removeprefix("nan-")))
    yield


def noting(real: Any, file: Path) -> Any:
    """`to_batch` that notes which samples it is given."""

    def noted(collated: Any, *others: Any) -> Any:
        with file.open("a") as lines:
            lines.write(json.dumps(collated["seeds"].tolist()) + "\n")
        return real(collated, *others)

    return noted


def at_step(step: int, do: Callable[[], None]) -> None:
    """Call `do` as step `step`, counted from 1, begins."""
    from recipes.training import loop

    real = loop._Loop.step

    def step_of(self: Any, number: int, *others: Any) -> Any:
        if number + 1 == step:
            do()
        return real(self, number, *others)

    loop._Loop.step = step_of  # type: ignore[method-assign]


def to_loaders(number: int, run_too: bool) -> None:
    """A signal to the loader processes of this one, and to itself if asked."""
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, number)
    if run_too:
        os.kill(os.getpid(), number)
    time.sleep(0.2)  # it is there before the step goes on


def fill(file: Path, free: int) -> None:
    """Take all of a small disk but `free` bytes."""
    with file.open("wb", buffering=0) as taken:
        with contextlib.suppress(OSError):
            while True:
                taken.write(bytes(4096))
        taken.truncate(max(0, taken.tell() - free))


def wait_for(file: Path) -> None:
    """Until it is there, a minute at most."""
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)


def poison(part: str) -> None:
    """From here on VideoMAE's loss, or the gradient of its patch embedding alone, is not a number."""
    import torch

    from recipes.pretrain.videomae import VideoMAE

    real = VideoMAE.forward

    def forward(self: Any, batch: Any) -> Any:
        losses = real(self, batch)
        zero = (self.encoder.model.embeddings.patch_embeddings.projection.weight * 0).sum()
        # d sqrt(x) / dx is infinite at 0, and times 0 not a number; sqrt(0) itself is 0.
        extra = zero + torch.nan if part == "loss" else zero.sqrt()
        return {"loss": losses["loss"] + extra, "loss_extra": extra.detach()}

    VideoMAE.forward = forward  # type: ignore[method-assign]
