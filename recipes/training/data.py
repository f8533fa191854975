"""From a prepared folder to batches on the device; the order of samples follows from (seed, epoch) and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from domains.base import AugmentPolicies, ClipSettings, RegionMapSettings
from domains.errors import MediaError, UnreachableError
from domains.store.clips import Clip, draw_views, sample_seed
from domains.store.prepared import Prepared
from recipes.encoders.base import Geometry
from recipes.encoders.text import padded
from recipes.objective import Batch, Words
from recipes.training.frequency import keep_frequencies
from recipes.training.measured import Measured

ATTEMPTS = 8  # samples tried in place of an unreadable one before a run gives up


class ClipData(Dataset[dict[str, Any]]):
    """Samples by their position in an endless stream: epoch after epoch, each in an order of its own.

    A sample is (row of the manifest, draw); `clips_per_video` draws of each row make an epoch. Nothing is dropped or seen twice: a batch
    may straddle two epochs. An unreadable sample is replaced by another that follows from its own seed, and counted; where ATTEMPTS in a
    row cannot be read the item holds their reasons alone (an exception would leave a loader process as a printed stack trace).

    prepared: the store; rows: the manifest rows to learn from; targets: label name -> values aligned with `rows`; regions: the domain's region
    map, for views that ask for it; signals: names of what was recorded beside the video, as targets at the time of the first view.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: Sequence[int],
        views: Mapping[str, Clip],
        clip: ClipSettings,
        policies: AugmentPolicies,
        *,
        seed: int = 0,
        clips_per_video: int = 1,
        targets: Mapping[str, NDArray[Any]] | None = None,
        regions: RegionMapSettings | None = None,
        signals: Sequence[str] = (),
    ) -> None:
        self.prepared, self.rows, self.views = prepared, list(rows), dict(views)
        self.clip, self.policies, self.seed, self.clips_per_video = clip, policies, seed, clips_per_video
        self.targets, self.regions = dict(targets or {}), regions
        self.measured = Measured(prepared, signals, clip, self.views)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def count(self) -> int:
        """What an epoch draws `clips_per_video` samples of, each."""
        return len(self.rows)

    def __len__(self) -> int:
        """Samples of one epoch."""
        return self.count * self.clips_per_video

    def fingerprint(self) -> str:
        """Which recordings are learned from, in which order: 16 hexadecimal digits."""
        return self.prepared.fingerprint(self.rows)

    def place(self, position: int) -> tuple[int, int, int]:
        """(epoch, place in `rows` (of what it has `count` of), draw) of a position in the stream."""
        epoch, offset = divmod(position, len(self))
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self)))
        draw, where = divmod(int(self._order[1][offset]), self.count)
        return epoch, where, draw

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, where, draw = self.place(position)
        failures: list[str] = []
        while True:
            row = self.row(epoch, where, draw)
            try:
                return {**self.read(row, epoch, where, draw), "row": row, "failures": failures}
            except UnreachableError as error:  # of a storage: the next sample would fare no better
                return {"failures": [*failures, f"{self.prepared.video_id(row)}: {error.what}"]}
            except MediaError as error:
                failures.append(f"{self.prepared.video_id(row)}: {error.reason}")
                if len(failures) >= ATTEMPTS:
                    return {"failures": failures}
                digest = hashlib.blake2b(f"{self.seed}/{epoch}/{where}/{draw}".encode(), digest_size=8).digest()
                where = int.from_bytes(digest, "big") % self.count

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The samples of a forward pass together; see the function of that name."""
        return collate(samples)

    def row(self, epoch: int, where: int, draw: int) -> int:
        """The manifest row of a sample."""
        return self.rows[where]

    def read(self, row: int, epoch: int, where: int, draw: int) -> dict[str, Any]:
        """What a sample holds: views, seed, targets. Raises MediaError, UnreachableError."""
        views = draw_views(
            self.prepared, row, self.views, self.clip, self.policies, self.seed, epoch, draw, regions=self.regions
        )
        return {
            "views": views,
            "seed": sample_seed(self.seed, epoch, self.prepared.video_id(row), draw),
            "targets": {name: values[where] for name, values in self.targets.items()} | self.measured.at(row, views),
        }


class PairedData(ClipData):
    """A sample of one folder together with a labelled one of another (adaptation between domains).

    Position p of the stream is the p-th sample of both, each in the order of its own epochs: every recording of either has its turn, whatever their
    numbers, and what holds of a stream (resumed exactly, the same for any number of processes) holds of the pair. Views, labels and failures of both;
    rows and seeds are those of the first.
    """

    def __init__(self, own: ClipData, source: ClipData) -> None:
        super().__init__(
            own.prepared, own.rows, own.views, own.clip, own.policies, seed=own.seed, clips_per_video=own.clips_per_video, targets=own.targets,
            regions=own.regions,
        )  # fmt: skip
        self.source = source

    def fingerprint(self) -> str:
        """Of both, and of the labels."""
        labels = b"".join(np.ascontiguousarray(values).tobytes() for values in self.source.targets.values())
        both = f"{super().fingerprint()} {self.source.fingerprint()} ".encode() + labels
        return hashlib.blake2b(both, digest_size=8).hexdigest()

    def __getitem__(self, position: int) -> dict[str, Any]:
        own, source = super().__getitem__(position), self.source[position]
        failures = [*own["failures"], *source["failures"]]
        if "views" not in own or "views" not in source:
            return {"failures": failures}
        views, targets = {**own["views"], **source["views"]}, {**own["targets"], **source["targets"]}
        return {**own, "views": views, "targets": targets, "failures": failures}


class StreamSampler:
    """Positions of each forward pass of one process, from optimiser step `start` to `total`.

    A step takes the next `world * accumulate * batch` positions of the stream, whoever shares them: the same samples make step s on one
    process with batch 2B and on two with batch B.
    """

    def __init__(self, batch: int, accumulate: int, rank: int, world: int, start: int, total: int) -> None:
        self.batch, self.accumulate, self.rank, self.world, self.start, self.total = (
            batch,
            accumulate,
            rank,
            world,
            start,
            total,
        )

    def __iter__(self) -> Iterator[list[int]]:
        for forward in range(self.start * self.accumulate, self.total * self.accumulate):
            first = (forward * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return (self.total - self.start) * self.accumulate


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> tensors, pixels still uint8 (B, T, H, W, C); `failures` alone where a sample has no views."""
    failures = [reason for sample in samples for reason in sample["failures"]]
    if not all("views" in sample for sample in samples):
        return {"failures": failures}
    views = {}
    for name in samples[0]["views"]:
        drawn = [sample["views"][name] for sample in samples]
        views[name] = {
            "frames": torch.from_numpy(np.stack([clip.frames for clip in drawn])),
            "flip": torch.tensor([clip.flip for clip in drawn]),
            "brightness": torch.tensor([clip.brightness for clip in drawn], dtype=torch.float32),
            "contrast": torch.tensor([clip.contrast for clip in drawn], dtype=torch.float32),
            "keep_temporal": torch.tensor([clip.keep_temporal for clip in drawn], dtype=torch.float64),
            "keep_spatial": torch.tensor([clip.keep_spatial for clip in drawn], dtype=torch.float64),
        }
    return {
        "views": views,
        "seeds": torch.tensor([sample["seed"] for sample in samples], dtype=torch.int64),
        "rows": torch.tensor([sample["row"] for sample in samples], dtype=torch.int64),
        "targets": {
            name: torch.as_tensor(np.stack([sample["targets"][name] for sample in samples]))
            for name in samples[0]["targets"]
        },
        "texts": {
            name: {
                "tokens": padded([sample["texts"][name]["tokens"] for sample in samples]),
                "numbers": torch.stack([sample["texts"][name]["numbers"] for sample in samples]),
            }
            for name in samples[0].get("texts", {})
        },
        "failures": failures,
    }


def to_batch(collated: Mapping[str, Any], geometry: Geometry, device: torch.device) -> Batch:
    """Collated samples -> pixel_values on the device: augmented, three channels, normalised by the encoder's statistics."""
    clips = {name: pixel_values(view, geometry, device) for name, view in collated["views"].items()}
    targets = {name: values.to(device, non_blocking=True) for name, values in collated["targets"].items()}
    texts = {
        name: Words(said["tokens"], said["numbers"]).to(device) for name, said in collated.get("texts", {}).items()
    }
    return Batch(clips=clips, seeds=collated["seeds"], targets=targets, index=collated["rows"], texts=texts)


def pixel_values(view: Mapping[str, Tensor], geometry: Geometry, device: torch.device) -> Tensor:
    """uint8 frames (B, T, H, W, C) and their augmentation -> (B, T, 3, H, W) float32."""
    pixels = view["frames"].to(device, non_blocking=True).movedim(-1, 2).float().div_(255)
    each = (-1, 1, 1, 1, 1)
    if bool(view["flip"].any()):
        flip = view["flip"].to(device).view(each)
        pixels = torch.where(flip, pixels.flip(-1), pixels)
    if bool((view["contrast"] != 1).any()) or bool((view["brightness"] != 0).any()):
        mean = pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
        contrast, brightness = view["contrast"].to(device).view(each), view["brightness"].to(device).view(each)
        pixels = ((pixels - mean) * contrast + mean + brightness).clamp_(0, 1)
    return keep_frequencies(normalise(pixels, geometry), view["keep_temporal"], view["keep_spatial"])


def plain_pixel_values(frames: Tensor, geometry: Geometry, device: torch.device) -> Tensor:
    """uint8 frames (B, T, H, W, C), as they are -> (B, T, 3, H, W) float32."""
    return normalise(frames.to(device, non_blocking=True).movedim(-1, 2).float().div_(255), geometry)


def normalise(pixels: Tensor, geometry: Geometry) -> Tensor:
    """(B, T, 1 or 3, H, W) in [0, 1] -> (B, T, 3, H, W) with the encoder's own mean and deviation."""
    each = (1, 1, 3, 1, 1)
    scale = torch.tensor([1 / spread for spread in geometry.std], device=pixels.device).view(each)
    shift = torch.tensor(
        [-mean / spread for mean, spread in zip(geometry.mean, geometry.std, strict=True)], device=pixels.device
    )
    return torch.addcmul(
        shift.view(each), pixels.expand(-1, -1, 3, -1, -1), scale
    )  # one pass over what is by far the largest tensor of the loader


def make_loader(data: ClipData, sampler: StreamSampler, workers: int, pin: bool) -> DataLoader[dict[str, Any]]:
    """A loader over one run's forward passes, in order."""
    cv2.setNumThreads(0)  # OpenCV's own pool would fight the trainer's, and does not survive a fork
    return DataLoader(
        data,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=data.collate,
        worker_init_fn=quiet_worker,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own: starting the loader must not draw from the trainer's
    )


@contextlib.contextmanager
def batches_of(loader: DataLoader[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """An iterator over the loader whose processes end with the block, however it ends. Left to the interpreter's last moments they would be
    asked by SIGTERM, which they leave to the trainer, and waited for.
    """
    batches = iter(loader)
    try:
        yield batches
    finally:
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()


def quiet_worker(_: int) -> None:
    """Loader processes leave signals to the trainer, which decides what they mean, and keep to one thread.

    Schedulers and torchrun send SIGTERM, and Slurm its SIGUSR1, to the whole group: the trainer needs its loader for the step that it finishes
    before it saves.
    A second SIGTERM ends the process, so that one that hangs can be ended at all.
    """

    def once(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    # A terminal sends the first two to the whole group, a scheduler the third.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, once)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
