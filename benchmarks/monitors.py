"""What watching a run costs: a look at features, and what is counted in every step. Prints seconds and shares.

python benchmarks/monitors.py                       # vfm-tiny, DISCOVR's recipe, this machine
python benchmarks/monitors.py --base                # ViT-B, 16 x 224 (for a GPU)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from domains.base import load_domain
from domains.echo.phantom import synthesise
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.prepared import Prepared
from recipes.config import Layer, recipe_yaml, resolve, yaml_layer
from recipes.encoders import build_encoder
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.videomae import fresh_videomae
from recipes.jobs.pretrain import build_objective, complete
from recipes.objective import Progress
from recipes.parts.usage import Usage
from recipes.training.data import ClipData, collate, to_batch
from recipes.training.monitors import Monitors
from recipes.training.optim import make_optimiser


def seconds(work: Callable[[], object], device: torch.device, times: int) -> float:
    """Fastest of several, waiting for the device."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found)


def phantom(folder: Path) -> Prepared:
    """16 patients, some 60 cines."""
    synthesise(folder / "studies", 16, workers=1)
    prepare(
        folder / "studies",
        folder / "prepared",
        load_domain("echo"),
        key=load_key(folder / "key", create=True),
        workers=1,
    )
    return Prepared.open(folder / "prepared")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip = {"frames": 16, "size": 224 if asked.base else 112, "stride": 2}
    layers = [yaml_layer(recipe_yaml("discovr")), Layer("clip", {"clip": clip, "train": {"batch_size": asked.batch}})]
    resolved = complete(resolve(layers))
    config = resolved.config
    encoder: VideoEncoder = build_encoder(config.encoder, config.clip)
    if asked.base:
        encoder = fresh_videomae(Geometry(frames=16, size=224), seed=0, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                                 intermediate_size=3072, patch_size=16, tubelet_size=2)  # fmt: skip
    objective = build_objective(resolved, encoder).to(device).train()
    optimiser = make_optimiser(objective, config.optim)
    with tempfile.TemporaryDirectory() as name:
        prepared = phantom(Path(name))
        data = ClipData(prepared, range(len(prepared)), objective.views, config.clip, config.augment, seed=0)
        batch = to_batch(collate([data[place] for place in range(asked.batch)]), encoder.geometry, device)
        state = {"step": 0, "monitor_start": {}}
        monitors = Monitors(objective, data, config, Path(name), state, device, print)

        def step() -> None:
            objective.before_step(Progress(1, 100, 0.0))
            with torch.autocast(device.type, torch.bfloat16):
                loss = objective(batch)["loss"]
            loss.backward()
            monitors.gradient(torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0))
            optimiser.step()
            optimiser.zero_grad()
            objective.after_step(Progress(2, 100, 0.0))

        counting, seen = Usage.observe, []

        def count(self: Usage, scores: torch.Tensor) -> None:
            """As it is, timed; where the GPU counts, `check_waiting` says what that costs."""
            began = time.perf_counter()
            counting(self, scores)
            seen.append(time.perf_counter() - began)

        Usage.observe = count  # type: ignore[method-assign]
        whole, counted = [], []
        for _ in range(6):
            seen.clear()
            whole.append(seconds(step, device, 1))
            counted.append(sum(seen))
        step_time, count_time = min(whole), min(counted)
        first, look = seconds(monitors.of_features, device, 1), seconds(monitors.of_features, device, 3)
        clips = len(monitors.clips.rows)
    every = config.train.monitor_every
    print(
        f"device {torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}; threads {torch.get_num_threads()}; batch {asked.batch}, bf16"
    )
    print(f"a step: {step_time:.4f} s, of which counting who wins: {count_time:.5f} s ({count_time / step_time:.2%})")
    share = look / every / step_time
    print(
        f"a look at {clips} clips: {look:.3f} s (the first, which reads them: {first:.3f} s); every {every} steps: {share:.2%}"
    )
    if device.type == "cuda":
        check_waiting(device)


def check_waiting(device: torch.device) -> None:
    """What is done in every step never waits for the GPU: torch raises where it does."""
    usage, scores = Usage(3000).to(device), torch.randn(10000, 3000, device=device)
    usage.observe(scores)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            usage.observe(scores)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    took = seconds(lambda: usage.observe(scores), device, 20)
    print(f"counting 10,000 rows of 3,000 prototypes: {took * 1e6:.0f} us, without waiting for the GPU")


if __name__ == "__main__":
    main()
