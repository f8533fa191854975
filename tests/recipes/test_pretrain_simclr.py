"""SimCLR: its loss by hand, batches in pieces, ranks as one, and a short run that learns without collapse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from encoder_factory import clips, write_encoder
from kill_factory import together
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from recipes.encoders import open_encoder
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.objective import Batch
from recipes.parts.contrast import nt_xent
from recipes.parts.gradient_cache import GradientCache, surrogate
from recipes.pretrain.simclr import SimCLR

SETTINGS = SimCLR.Settings(head_hidden=16, head_outputs=8, head_motion=True)
TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2,
}  # fmt: skip


def build(dropout: float = 0.0) -> SimCLR:
    torch.manual_seed(0)
    encoder = fresh_videomae(Geometry(frames=4, size=32), seed=0, hidden_dropout_prob=dropout, **TINY)
    return SimCLR(encoder, SETTINGS).train()


def batch(count: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pairs = {view: torch.randn(count, 4, 3, 32, 32, generator=generator) for view in ("first", "second")}
    return Batch(pairs, torch.arange(count), index=torch.arange(count))


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    return found


def test_the_loss_by_hand() -> None:
    """Two samples, four vectors on the axes: of three candidates, the partner at cosine 1 and two at cosine 0."""
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert nt_xent(first, second, 0.5).item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), abs=1e-6)


def test_the_loss_by_brute_force() -> None:
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    z = F.normalize(torch.cat([first, second]), dim=-1)
    total = 0.0
    for i in range(10):
        scores = [math.exp((z[i] @ z[k]).item() / 0.2) for k in range(10) if k != i]
        total -= math.log(math.exp((z[i] @ z[(i + 5) % 10]).item() / 0.2) / sum(scores))
    assert nt_xent(first, second, 0.2).item() == pytest.approx(total / 10, abs=1e-5)


def test_gradients_reach_everything_that_is_trained() -> None:
    objective = build()
    losses = objective(batch())
    losses["loss"].backward()
    assert not [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not losses["agreement"].requires_grad
    assert -1 <= losses["agreement"].item() <= 1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_pieces_have_the_gradients_of_the_whole_batch(size: int, dropout: float) -> None:
    """With dropout, the whole batch is embedded in the same pieces from the same generator state."""
    objective, data = build(dropout), batch()
    torch.manual_seed(3)
    parts = [objective.embed(piece) for piece in data.pieces(size)]
    whole = objective.compare({view: torch.cat([part[view] for part in parts]) for view in objective.views})
    whole["loss"].backward()
    expected = gradients(objective)

    torch.manual_seed(3)
    cache = GradientCache(data.pieces(size), objective.embed, objective.compare)
    torch.testing.assert_close(cache.losses["loss"], whole["loss"])
    after = torch.get_rng_state()
    for piece, slopes in cache:
        objective(piece, slopes)["loss"].backward()
    found = gradients(objective)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), after)  # what follows draws as if there had been no second pass


def test_a_batch_in_pieces_is_the_batch() -> None:
    data = batch(5)
    data.targets = {"y": torch.arange(5.0)}
    pieces = data.pieces(2)
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece["first"] for piece in pieces]), data["first"])
    assert torch.equal(torch.cat([piece.targets["y"] for piece in pieces]), data.targets["y"])
    assert torch.equal(torch.cat([piece.index for piece in pieces]), data.index)


def rank_main(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    objective = build()
    own = batch(6).pieces(3)[rank]
    results = {}
    for name in ("whole", "pieces"):
        wrapped = nn.parallel.DistributedDataParallel(objective)
        if name == "whole":
            losses = wrapped(own)
            losses["loss"].backward()
        else:
            cache = GradientCache(own.pieces(2), objective.embed, objective.compare)
            losses, steps = cache.losses, list(cache)
            for number, (piece, slopes) in enumerate(steps):
                if number + 1 < len(steps):
                    with wrapped.no_sync():
                        wrapped(piece, slopes)["loss"].backward()
                else:
                    wrapped(piece, slopes)["loss"].backward()
        results |= {f"{name}.{key}": value for key, value in gradients(objective).items()}
        results[f"{name}.loss"] = losses["loss"].detach()
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one_with_the_whole_batch(tmp_path: Path) -> None:
    together(rank_main, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    objective = build()
    loss = objective(batch(6))["loss"]
    loss.backward()
    expected = gradients(objective)
    for name in ("whole", "pieces"):
        mean = (ranks[0][f"{name}.loss"] + ranks[1][f"{name}.loss"]) / 2
        torch.testing.assert_close(mean, loss.detach(), rtol=0, atol=1e-6)
        for key, value in expected.items():
            for rank in ranks:  # averaged over ranks by DDP: the same on both
                torch.testing.assert_close(rank[f"{name}.{key}"], value, rtol=1e-4, atol=1e-6)


def test_a_short_run_learns_and_does_not_collapse() -> None:
    objective = build()
    generator = torch.Generator().manual_seed(1)
    scenes = torch.randn(12, 1, 3, 32, 32, generator=generator)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        noise = [0.5 * torch.randn(12, 4, 3, 32, 32, generator=generator) for _ in range(2)]
        pairs = {"first": scenes + noise[0], "second": scenes + noise[1]}
        found = objective(Batch(pairs, torch.arange(12)))
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        losses.append(found["loss"].item())
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    with torch.no_grad():
        features = objective.encoder.embed(scenes.expand(-1, 4, -1, -1, -1))
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum()
    assert (-(share * share.clamp_min(1e-12).log()).sum()).exp() > 3  # effective rank


@pytest.mark.parametrize("kind", ["videomae", "vjepa2"])
def test_checkpointed_activations_give_the_same_gradients_and_keep_less(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "model", kind)).train()
    found = {}
    for checkpointing in (False, True):
        encoder.checkpointing = checkpointing
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = encoder.embed(clips()).square().sum()
        loss.backward()
        found[checkpointing] = gradients(encoder), kept
    assert found[True][1] < 0.4 * found[False][1]
    for name, gradient in found[False][0].items():
        torch.testing.assert_close(found[True][0][name], gradient)
    assert surrogate({"a": torch.ones(2)}, {"a": torch.tensor([1.0, 2.0])}).item() == 3
