"""Two ranks of a half batch each compute what one process with the whole batch does."""

from pathlib import Path

import pytest
import torch
from alignment_factory import gradients, modalities
from kill_factory import together
from torch import distributed as dist

from recipes.parts.centre import Centre
from recipes.parts.distributed import gather, global_max, global_mean, global_sum, world_size
from recipes.parts.prototypes import sinkhorn
from recipes.parts.standardise import BatchStandardise

FOUND = ("value", "by rows", "by what is learned")


def whole() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 5, generator=generator), torch.rand(8, 3, generator=generator)


def contrast(rows: torch.Tensor) -> torch.Tensor:
    """A loss in which every row meets every other."""
    return (rows @ rows.T).tanh().square().mean()


def centre_of(rows: torch.Tensor) -> torch.Tensor:
    centre = Centre(rows.shape[-1]).train()
    centre.observe(rows)
    centre.update(0.5)
    return centre.value


def rank_main(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    assert world_size() == 2
    logits, scores = (part[rank * 4 : rank * 4 + 4] for part in whole())
    uneven = whole()[0][:3] if rank == 0 else whole()[0][3:]
    rows = logits.clone().requires_grad_()
    contrast(gather(rows)).backward()
    own = uneven.clone().requires_grad_()
    even = BatchStandardise()(own)
    (even.sigmoid().sum() * 2).backward()  # the sum over all rows is twice the mean of what ranks say
    results = {
        "gradient": rows.grad / 2,  # as DDP averages over ranks
        "standardised": even.detach(),
        "standardised_gradient": own.grad / 2,
        "gathered": gather(logits),
        "mean": global_mean(uneven),
        "max": global_max(scores),
        "sum": global_sum(torch.tensor(rank + 1.0)),
        "assignments": sinkhorn(scores, 0.05),
        "centre": centre_of(uneven),
    }
    for name, found in gradients(*(part[rank * 4 : rank * 4 + 4] for part in modalities())).items():
        results |= {f"{name} {what}": value for what, value in zip(FOUND, found, strict=True)}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    together(rank_main, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_equal_one(ranks: list[dict[str, torch.Tensor]]) -> None:
    logits, scores = whole()
    rows = logits.clone().requires_grad_()
    contrast(gather(rows)).backward()
    assert rows.grad is not None
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.cat([rank["gradient"] for rank in ranks]), rows.grad, **close)
    torch.testing.assert_close(torch.cat([rank["assignments"] for rank in ranks]), sinkhorn(scores, 0.05), **close)
    alone = logits.clone().requires_grad_()
    even = BatchStandardise()(alone)
    even.sigmoid().sum().backward()
    torch.testing.assert_close(torch.cat([rank["standardised"] for rank in ranks]), even.detach(), **close)
    torch.testing.assert_close(torch.cat([rank["standardised_gradient"] for rank in ranks]), alone.grad, **close)
    for rank in ranks:
        assert torch.equal(rank["gathered"], logits)
        assert rank["sum"].item() == 3
        assert rank["max"] == scores.max()
        torch.testing.assert_close(rank["mean"], logits.mean(dim=0), **close)
        torch.testing.assert_close(rank["centre"], centre_of(logits), **close)


def test_losses_between_modalities_on_two_ranks_are_those_of_one(ranks: list[dict[str, torch.Tensor]]) -> None:
    for name, (value, by_rows, by_learned) in gradients(*modalities()).items():
        assert by_rows.abs().sum() > 0
        values, rows, learned = ([rank[f"{name} {what}"] for rank in ranks] for what in FOUND)
        for found, expected in (
            (sum(values) / 2, value),
            (torch.cat(rows) / 2, by_rows),
            (sum(learned) / 2, by_learned),
        ):  # as DDP averages
            torch.testing.assert_close(
                found, expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_alone_they_are_the_identity() -> None:
    logits, _ = whole()
    assert world_size() == 1
    assert gather(logits) is logits
    assert torch.equal(global_sum(logits), logits)
    torch.testing.assert_close(global_mean(logits), logits.mean(dim=0))
