"""Training steps a second: 90 % of the tokens hidden before the first block, against the same encoder seeing all of them.

    python benchmarks/train.py [--encoder vfm-tiny] [--batch 16] [--steps 8] [--precision auto|fp32|bf16] [--json]

Three ways of the same step (forward, backward, AdamW), in turn, several rounds each, the fastest round counted:
    masked        our VideoMAE: the encoder sees a tenth, a light decoder predicts the rest
    all tokens    the same encoder over every token, the same decoder, the same loss: what masking after encoding would cost
    transformers  a plain loop over VideoMAEForPreTraining with the same encoder and a decoder of the same size (the same computation as masked)
Prints ratios; figures belong to the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from recipes.encoders import open_encoder
from recipes.encoders.base import VideoEncoder
from recipes.objective import Batch
from recipes.pretrain.videomae import VideoMAE
from recipes.training.processes import mixed_precision

Step = Callable[[], torch.Tensor]


def masked_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> tuple[torch.nn.Module, Step]:
    """Our method as it trains."""
    objective = VideoMAE(encoder, settings)
    batch = Batch({"clip": clip}, torch.arange(len(clip)))
    return objective, lambda: objective(batch)["loss"]


def full_step(encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings) -> tuple[torch.nn.Module, Step]:
    """The encoder over all tokens; decoder and loss over as many tokens as the masked step decodes."""
    objective = VideoMAE(encoder, settings)
    every = torch.arange(encoder.tokens).expand(len(clip), -1)
    hidden = every[:, : round(encoder.tokens * settings.mask_ratio)]
    return (
        objective,
        lambda: objective.decoder(encoder(clip), every, hidden).float().square().mean(),
    )


def transformers_step(
    encoder: VideoEncoder, clip: torch.Tensor, settings: VideoMAE.Settings
) -> tuple[torch.nn.Module, Step]:
    """What a user would write without us."""
    config = VideoMAEConfig(**{
        **encoder.model.config.to_dict(), "decoder_hidden_size": settings.decoder_width, "decoder_num_hidden_layers": settings.decoder_depth,
        "decoder_num_attention_heads": settings.decoder_heads, "decoder_intermediate_size": 4 * settings.decoder_width,
    })  # fmt: skip
    model = VideoMAEForPreTraining(config)
    t, h, w = encoder.grid
    places = torch.stack([torch.randperm(h * w) >= round(h * w * (1 - settings.mask_ratio)) for _ in clip])
    mask = places.unsqueeze(1).expand(-1, t, -1).flatten(1)
    return model, lambda: model(clip, bool_masked_pos=mask).loss


def seconds_a_step(module: torch.nn.Module, step: Step, steps: int, device: torch.device, bf16: bool) -> float:
    """Mean of one round, after one step to warm up."""
    module.to(device).train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-4, fused=True)

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = step()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    once()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        once()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vfm-tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = mixed_precision(asked.precision) == "bf16"
    settings = VideoMAE.Settings(mask_ratio=0.9, decoder_width=96, decoder_depth=2, decoder_heads=3)
    geometry = open_encoder(asked.encoder).geometry
    clip = torch.randn(asked.batch, geometry.frames, 3, geometry.size, geometry.size, device=device)
    ways = {"masked": masked_step, "all tokens": full_step, "transformers": transformers_step}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(asked.rounds):
        for name, make in ways.items():
            module, step = make(open_encoder(asked.encoder).to(device), clip, settings)
            best[name] = min(best[name], seconds_a_step(module, step, asked.steps, device, bf16))
    ratios = {name: best[name] / best["masked"] for name in ways if name != "masked"}
    outcome = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "precision": "bf16" if bf16 else "fp32",
        "clips_per_second": {name: asked.batch / seconds for name, seconds in best.items()},
        "masked_is_faster_by": ratios,
    }
    if asked.json:
        print(json.dumps(outcome, indent=2))
        return
    print(f"{asked.encoder}, batch {asked.batch}, {outcome['device']}, {outcome['precision']}")
    for name, seconds in best.items():
        print(f"  {name:13s} {asked.batch / seconds:8.1f} clips/s   {seconds / best['masked']:.2f} x the masked step")


if __name__ == "__main__":
    main()
