"""Training steps a second and memory: our VideoMAE against the loop that a user would write over transformers, and against our own encoder with
all tokens.

    python benchmarks/train.py [--encoder vfm-tiny] [--batch 16] [--steps 8] [--precision auto|fp32|bf16] [--json]

Ways of the same step (forward, backward, AdamW), in turn, several rounds each, the fastest round counted:
    masked        our VideoMAE: the encoder sees a tenth, a light decoder predicts the rest
    half decoded  the same, but the decoder predicts half of the hidden patches (decode_share=0.5, as VideoMAE V2 does)
    all tokens    the same encoder over every token, the same decoder, the same loss: what masking after encoding would cost
    transformers  a plain loop over VideoMAEForPreTraining with the same encoder and a decoder of the same size: the computation of masked
    compiled      masked, its blocks through torch.compile (with --compile)
Memory is that of a step beyond model and optimiser: on a GPU what torch reserves at most, on a CPU the resident memory of a process of its own.
Prints ratios; figures belong to the machine. On a GPU also MFU: operations of the forward and backward pass over what the device can do in bf16.
An encoder of the size of ViT-B, without weights to fetch: --encoder vit-b (16 x 224).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from recipes.encoders import open_encoder
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.videomae import fresh_videomae
from recipes.objective import Batch
from recipes.pretrain.videomae import VideoMAE
from recipes.training.flops import flops_of, peak
from recipes.training.processes import mixed_precision

Step = Callable[[], torch.Tensor]
Way = tuple[torch.nn.Module, Step]
VIT_B = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "patch_size": 16, "tubelet_size": 2,
}  # fmt: skip
SMALL_DECODER = {"decoder_width": 96, "decoder_depth": 2, "decoder_heads": 3}


def make_encoder(name: str) -> VideoEncoder:
    """An encoder of ours by name, or one of the size of ViT-B with random weights."""
    return fresh_videomae(Geometry(frames=16, size=224), seed=0, **VIT_B) if name == "vit-b" else open_encoder(name)


def masked_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> Way:
    """Our method as it trains."""
    objective = VideoMAE(encoder, settings).to(clip.device)
    batch = Batch({"clip": clip}, torch.arange(len(clip)))
    return objective, lambda: objective(batch)["loss"]


def half_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> Way:
    """Our method, predicting half of the hidden patches."""
    return masked_step(encoder, clip, settings.model_copy(update={"decode_share": 0.5}))


def full_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> Way:
    """The encoder over all tokens; decoder and loss over as many tokens as the masked step decodes."""
    objective = VideoMAE(encoder, settings).to(clip.device)
    every = torch.arange(encoder.tokens, device=clip.device).expand(len(clip), -1)
    hidden = every[:, : round(encoder.tokens * settings.mask_ratio)]
    return objective, lambda: objective.decoder(encoder(clip), every, hidden).float().square().mean()


def transformers_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> Way:
    """What a user would write without us."""
    config = VideoMAEConfig(**{
        **encoder.model.config.to_dict(), "decoder_hidden_size": settings.decoder_width, "decoder_num_hidden_layers": settings.decoder_depth,
        "decoder_num_attention_heads": settings.decoder_heads, "decoder_intermediate_size": 4 * settings.decoder_width,
    })  # fmt: skip
    model = VideoMAEForPreTraining(config).to(clip.device)
    t, h, w = encoder.grid
    places = torch.stack([torch.randperm(h * w) >= round(h * w * (1 - settings.mask_ratio)) for _ in clip])
    mask = places.unsqueeze(1).expand(-1, t, -1).flatten(1).to(clip.device)
    return model, lambda: model(clip, bool_masked_pos=mask).loss


def compiled_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> Way:
    """Our method, every block of encoder and decoder through torch.compile."""
    objective, step = masked_step(encoder, clip, settings)
    for block in [*encoder.blocks, *objective.get_submodule("decoder.blocks").children()]:
        block.compile()
    return objective, step


WAYS = {"masked": masked_step, "half decoded": half_step, "all tokens": full_step, "transformers": transformers_step}
COMPILED = "compiled"


def ways(asked: argparse.Namespace) -> dict[str, Callable[[VideoEncoder, torch.Tensor, VideoMAE.Settings], Way]]:
    """Those that are compared."""
    return {**WAYS, COMPILED: compiled_step} if asked.compile else WAYS


class Trial:
    """One way, ready to take steps."""

    def __init__(self, name: str, asked: argparse.Namespace, device: torch.device, bf16: bool) -> None:
        torch.manual_seed(0)
        encoder = make_encoder(asked.encoder).to(device)
        # ViT-B has the decoder of its paper; a small encoder a small one, as our recipe.
        settings = VideoMAE.Settings() if asked.encoder == "vit-b" else VideoMAE.Settings(**SMALL_DECODER)
        geometry = encoder.geometry
        self.clip = torch.randn(asked.batch, geometry.frames, 3, geometry.size, geometry.size, device=device)
        self.module, self.step = ways(asked)[name](encoder, self.clip, settings)
        self.module.train()
        self.device, self.bf16 = device, bf16
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, 1e-4, fused=True)

    def pass_(self) -> None:
        """Forward and backward."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.step()
        loss.backward()

    def once(self) -> None:
        """A whole step."""
        self.pass_()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def seconds(self, steps: int) -> float:
        """Mean of one round, after one step to warm up."""
        self.once()
        synchronise(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            self.once()
        synchronise(self.device)
        return (time.perf_counter() - began) / steps

    def memory(self) -> float:
        """Bytes that a step needs beyond model, optimiser and clip."""
        if self.device.type == "cuda":
            self.once()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.once()
            return torch.cuda.max_memory_allocated(self.device) - before
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # the peak so far, of imports and of the model, is forgotten (Linux)
        before = resident("VmRSS")
        self.once()
        self.once()
        return resident("VmHWM") - before


def resident(what: str) -> float:
    """Bytes of memory of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith(f"{what}:")))


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, where there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def memory_of(name: str, words: list[str]) -> float:
    """Memory of one way, in a process that has done nothing else."""
    command = [sys.executable, __file__, *words, "--only", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(asked: argparse.Namespace, device: torch.device, bf16: bool) -> dict[str, Any]:
    """Everything, by way."""
    best = dict.fromkeys(ways(asked), float("inf"))
    for _ in range(asked.rounds):
        for name in best:
            trial = Trial(name, asked, device, bf16)
            best[name] = min(best[name], trial.seconds(asked.steps))
            del trial
    on_gpu = device.type == "cuda"  # torch knows what a step reserves there; resident memory is of a whole process
    memory = {
        name: Trial(name, asked, device, bf16).memory() if on_gpu else memory_of(name, sys.argv[1:]) for name in best
    }
    flops = {
        name: flops_of(Trial(name, asked, device, bf16).pass_) for name in ("masked", "half decoded", "transformers")
    }
    limit = peak(device, bf16)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "precision": "bf16" if bf16 else "fp32",
        "clips_per_second": {name: asked.batch / seconds for name, seconds in best.items()},
        "memory_mib": {name: size / 2**20 for name, size in memory.items()},
        "tflops_per_second": {name: count / best[name] / 1e12 for name, count in flops.items()},
        "mfu": {name: count / best[name] / limit for name, count in flops.items()} if limit else {},
        "ratios": {
            "masked to transformers": best["transformers"] / best["masked"],
            "half decoded to transformers": best["transformers"] / best["half decoded"],
            "masked to all tokens": best["all tokens"] / best["masked"],
            "memory, masked to transformers": memory["masked"] / memory["transformers"],
            **({"compiled to masked": best["masked"] / best[COMPILED]} if asked.compile else {}),
        },
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vfm-tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument(
        "--only", choices=[*WAYS, COMPILED], help="bytes of memory of one way (used by the benchmark itself)"
    )
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = mixed_precision(asked.precision) == "bf16"
    if asked.only:
        print(Trial(asked.only, asked, device, bf16).memory())
        return
    outcome = measure(asked, device, bf16)
    if asked.json:
        print(json.dumps(outcome, indent=2))
        return
    print(f"{asked.encoder}, batch {asked.batch}, {outcome['device']}, {outcome['precision']}")
    for name, rate in outcome["clips_per_second"].items():
        mfu = f"   MFU {outcome['mfu'][name]:.1%}" if name in outcome["mfu"] else ""
        print(f"  {name:13s} {rate:8.1f} clips/s {outcome['memory_mib'][name]:8.0f} MiB{mfu}")
    for name, ratio in outcome["ratios"].items():
        print(f"  {name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
