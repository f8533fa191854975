"""EchoPrime: its loss on vectors of a few numbers, its attention, and which recordings the clips of a report are of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_factory import build, make_batch
from store_factory import make_prepared
from text_factory import small_text
from torch import Tensor
from torch.nn import functional as F

from domains.base import AugmentPolicies, ClipSettings
from domains.store.clips import Clip
from domains.store.text_tables import read_texts
from domains.store.texts import Asked
from recipes.pretrain.echoprime import EchoPrime, ViewAttention
from recipes.training.data import collate
from recipes.training.texts import TextData

CLIP = ClipSettings(frames=4, size=16, stride=2, rate=None)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(clips: Tensor, texts: Tensor, words: list[int], tau: float) -> float:
    """CLIP's loss, sum by sum; texts with the same words are left out."""
    scores = (F.normalize(clips, dim=-1) @ F.normalize(texts, dim=-1).T / tau).tolist()
    total, count = 0.0, len(words)
    for i in range(count):
        counted = [j for j in range(count) if j == i or words[j] != words[i]]
        total += math.log(sum(math.exp(scores[i][j]) for j in counted)) - scores[i][i]
        total += math.log(sum(math.exp(scores[j][i]) for j in counted)) - scores[i][i]
    return total / (2 * count)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_loss_is_of_the_study_and_of_its_clips(share: float) -> None:
    objective = build("echoprime", weight_study=share)
    assert isinstance(objective, EchoPrime)
    v, t = F.normalize(rows(4, 3, 8), dim=-1), rows(4, 8, seed=1)
    a = rows(4, 3, seed=2).softmax(dim=1)
    words = [5, 7, 5, 9]  # the first and the third report say the same
    found = objective.compare(
        {"clips": v, "weights": a, "texts": t, "scale": torch.full((4,), 4.0), "words": torch.tensor(words)}
    )
    study = torch.stack([sum(a[i, k] * v[i, k] for k in range(3)) for i in range(4)])  # type: ignore[misc]
    whole = by_hand(study, t, words, 0.25)
    single = sum(by_hand(v[:, k], t, words, 0.25) for k in range(3)) / 3
    assert found["loss_study"].item() == pytest.approx(whole, abs=1e-5)
    assert found["loss_clips"].item() == pytest.approx(single, abs=1e-5)
    assert found["loss"].item() == pytest.approx(share * whole + (1 - share) * single, abs=1e-5)
    entropy = [-sum(p * math.log(p) for p in one) for one in a.tolist()]
    assert found["clips_used"].item() == pytest.approx(np.mean(np.exp(entropy)), abs=1e-5)


def test_a_clip_counts_by_its_view() -> None:
    attention = ViewAttention(width=2, views=2)
    with torch.no_grad():
        attention.tell.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
        attention.tell.bias.zero_()
        attention.table.copy_(torch.tensor([2.0, -1.0]))
    clips = torch.tensor([[[1.0, -1.0], [-2.0, 2.0], [5.0, 3.0]]])  # after the norm (1, -1), (-1, 1), (1, -1)
    share = 1 / (1 + math.exp(-6.0))  # of view 0, for the first and the third
    scores = [2 * share - (1 - share), 2 * (1 - share) - share, 2 * share - (1 - share)]
    wanted = [math.exp(one) / sum(map(math.exp, scores)) for one in scores]
    np.testing.assert_allclose(attention(clips)[0].detach(), wanted, atol=1e-4)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(attention(clips[:, order]), attention(clips)[:, order])


def test_it_sees_as_many_clips_as_it_is_told_and_learns_to_weigh_them() -> None:
    objective = build("echoprime")
    assert isinstance(objective, EchoPrime)
    assert {name: view.recording for name, view in objective.views.items()} == {"clip": 0, "clip 2": 1, "clip 3": 2}
    batch = make_batch(objective)
    embedded = objective.embed(batch)
    assert embedded["clips"].shape == (6, 3, 8)
    torch.testing.assert_close(embedded["clips"].norm(dim=-1), torch.ones(6, 3))
    torch.testing.assert_close(embedded["weights"].sum(dim=1), torch.ones(6))
    objective(batch)["loss"].backward()
    assert all(bool(p.grad.any()) for p in objective.attention.parameters() if p.grad is not None)
    assert objective.attention.table.grad is not None
    assert objective.final_alignment() is objective.alignment


def stream(tmp_path: Path, views: int, **options: object) -> TextData:
    """Nine recordings of three studies, three each, and a report of each study."""
    made = make_prepared(tmp_path / f"prepared {views}", videos=9, patients=3, size=32, frames=20)
    studies = dict.fromkeys(made.prepared.column("study"))
    table = tmp_path / "reports.csv"
    table.write_text("study,text\n" + "".join(f"{name},a ring that beats\n" for name in studies))
    texts = read_texts([table], made.prepared, None)
    asked = {f"clip {number}": Clip(augment="none", recording=number) for number in range(views)}
    return TextData(
        made.prepared, range(9), asked, CLIP, AugmentPolicies(), texts=texts, asked={"text": Asked()}, reader=small_text().reader, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_clips_of_a_report_are_of_different_recordings_while_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stream(tmp_path, 5)
    studies, met = data.prepared.column("study"), []
    whole = type(data.prepared).frames

    def watched(self: object, row: int, indices: list[int]) -> object:
        met.append(row)
        return whole(self, row, indices)  # type: ignore[arg-type]

    monkeypatch.setattr(type(data.prepared), "frames", watched)
    orders = set()
    for position in range(12):
        met.clear()
        sample = data[position]
        assert sample["row"] == met[0]
        assert len(met) == 5
        assert len(set(met[:3])) == 3
        assert met[3:] == met[:2]  # over again
        assert len({studies[row] for row in met}) == 1
        frames = [sample["views"][f"clip {number}"].frames for number in (0, 3)]
        orders.add(tuple(met[:3]))
        again = data[position]
        assert all((again["views"][name].frames == one.frames).all() for name, one in sample["views"].items())
    assert len(orders) > 6
    assert (frames[0] != frames[1]).any()  # the same recording, another time
    batch = collate([data[0], data[1]])
    assert batch["views"]["clip 4"]["frames"].shape == (2, 4, 16, 16, 1)


def test_one_clip_of_a_report_is_what_it_always_was(tmp_path: Path) -> None:
    """Another clip of the study changes nothing of the first: runs of methods with one clip resume as they began."""
    one, three = stream(tmp_path, 1), stream(tmp_path, 3)
    for position in range(6):
        first, second = one[position], three[position]
        assert first["row"] == second["row"]
        assert first["seed"] == second["seed"]
        assert (first["views"]["clip 0"].frames == second["views"]["clip 0"].frames).all()
