"""Methods that learn from the order of what was said, each against its equation on vectors of a few numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from alignment_factory import rows
from objective_factory import build, make_batch
from store_factory import make_prepared
from text_factory import small_text, write_narrations
from torch import Tensor
from torch.nn import functional as F

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import DataError
from domains.store.clips import Clip
from domains.store.text_tables import read_texts
from domains.store.texts import Asked
from recipes.objective import FOREVER
from recipes.parts.alignment import both_ways
from recipes.parts.sorter import Sorter, sorting_loss
from recipes.parts.unaligned import in_order, unaligned_loss
from recipes.pretrain.tvts import TVTS
from recipes.pretrain.weaksvr import WeakSVR
from recipes.training.texts import TextData

AXES = torch.eye(8)
PARTS = ("one", "two", "three", "four")


def sorter() -> Sorter:
    torch.manual_seed(0)
    made = Sorter(6, 5, 8, 3, depth=1, heads=2)
    made.answer.weight.data.mul_(50)
    return made


def test_a_sorter_does_not_know_where_a_text_stands_but_when_a_clip_was() -> None:
    seen, said, present = rows(2, 3, 2, 6), rows(2, 3, 5, seed=1), torch.ones(2, 3, dtype=torch.bool)
    order, judge = torch.tensor([2, 0, 1]), sorter()
    scores = judge(seen, said, present)
    torch.testing.assert_close(judge(seen, said[:, order], present), scores[:, order])
    assert not judge(seen[:, order], said, present).allclose(scores, atol=1e-3)


def test_a_sorter_never_looks_at_what_is_missing() -> None:
    seen, said = rows(2, 3, 2, 6), rows(2, 3, 5, seed=1)
    present = torch.tensor([[True, True, False], [False, False, False]])
    judge = sorter()
    scores = judge(seen, said, present)
    other, spoken = seen.clone(), said.clone()
    other[0, 2], spoken[0, 2] = 9.0, 9.0
    torch.testing.assert_close(judge(other, spoken, present)[0, :2], scores[0, :2])
    assert scores[0, :2, 2].max() < -1e30  # no text has a place that there is not
    assert scores.isfinite().all()


def test_sorting_by_hand() -> None:
    """Two texts of three, of which the first is told right; and none."""
    scores = torch.tensor([[[2.0, 0, -1e38], [1.0, 0, -1e38], [0, 0, 0]], [[0.0, 0, 0]] * 3])
    present = torch.tensor([[True, True, False], [False] * 3])
    each, right = sorting_loss(scores, present)
    assert each.tolist() == pytest.approx([(math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 2, 0.0])
    assert right.tolist() == [1, 0]


def test_tvts_is_the_sum_of_its_terms_and_asks_those_who_have_an_order() -> None:
    objective = build("tvts", weight_order=0.5)
    assert isinstance(objective, TVTS)
    v, t = rows(3, 8), rows(3, 8, seed=1)
    embedded = {
        "clips": v, "texts": t, "scale": torch.full((3,), 4.0), "words": torch.arange(3), "levels": torch.tensor([1, 1, 1]),
        "order": torch.tensor([0.7, 5.0, 0.3]), "count": torch.tensor([2, 1, 2]), "right": torch.tensor([2, 1, 1]),
    }  # fmt: skip
    found = objective.compare(embedded)
    assert found["loss_order"].item() == pytest.approx(0.5)  # the second has one text, and no order
    assert found["loss"].item() == pytest.approx(both_ways(v, t, 0.25).item() + 0.25, abs=1e-6)
    assert found["accuracy_order"].item() == pytest.approx(0.75)
    nobody = objective.compare({**embedded, "count": torch.tensor([1, 0, 1])})
    assert nobody["loss_order"].item() == 0


def test_sorting_teaches_the_encoder_and_not_the_text_tower() -> None:
    objective = build("tvts")
    assert isinstance(objective, TVTS)
    assert tuple(objective.views) == ("clip", "step 1", "step 2")
    objective.embed(make_batch(objective))["order"].sum().backward()
    assert all(p.grad is None for p in objective.text.parameters())
    assert any(bool(p.grad.any()) for p in objective.encoder.parameters() if p.grad is not None)
    assert objective.sorter.hear.weight.grad is not None


def test_labels_in_order_never_go_back_and_are_of_what_is_there() -> None:
    best = torch.tensor([[2, 0, 1, 2], [1, 1, 0, 0]])
    scores = F.one_hot(best, 3).float()
    columns, every = torch.tensor([[True, True, True], [True, True, False]]), torch.ones(2, 4, dtype=torch.bool)
    scores[1, :, 2] = 9.0  # is not there
    assert in_order(scores, columns, every).tolist() == [[0, 1, 2, 2], [0, 0, 1, 1]]
    some = torch.tensor([[True, True, True, False], [True, True, False, False]])
    found = in_order(scores, columns, some)
    assert found[0, :3].tolist() == [0, 1, 2]
    assert found[1, :2].tolist() == [1, 1]


def test_unaligned_by_hand() -> None:
    """Three frames, two sentences and a place that is empty; the first frame is most like the second sentence, so that sorting changes labels."""
    frames = torch.stack([AXES[1], AXES[0], AXES[1]]).unsqueeze(0)
    sentences = torch.stack([AXES[0], AXES[1], torch.full((8,), 7.0)]).unsqueeze(0)
    present = torch.tensor([[True, True, False]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    first = (wrong + wrong + right) / 3  # argmax 1, 0, 1; in order 0, 1, 1
    second = (
        math.log(2 + math.exp(2)) + math.log(2 * math.exp(2) + 1)
    ) / 2  # argmax 1, 0; in order 0, 1; both at cosine 0
    assert unaligned_loss(frames, sentences, present, 2.0).item() == pytest.approx((first + second) / 2, abs=1e-5)
    alone = torch.tensor([[True, False, False]])
    assert unaligned_loss(frames, sentences, alone, 2.0).item() == 0
    both = unaligned_loss(frames.expand(2, -1, -1), sentences.expand(2, -1, -1), torch.cat([present, alone]), 2.0)
    assert both.item() == pytest.approx((first + second) / 2, abs=1e-5)


def test_a_perfect_match_costs_nothing_and_the_official_way_does() -> None:
    frames = AXES[:3].unsqueeze(0)
    present = torch.ones(1, 3, dtype=torch.bool)
    assert unaligned_loss(frames, frames, present, 50.0).item() < 1e-6
    one_hot = torch.eye(3)
    assert F.cross_entropy(one_hot, torch.arange(3)).item() == pytest.approx(math.log(1 + 2 / math.e))


def test_weaksvr_is_the_sum_of_its_terms() -> None:
    objective = build("weaksvr", weight_order=0.5)
    assert isinstance(objective, WeakSVR)
    frames, t, sentences = rows(3, 3, 8), rows(3, 8, seed=1), rows(3, 2, 8, seed=2)
    present = torch.tensor([[True, True], [True, False], [True, True]])
    found = objective.compare(
        {
            "frames": frames, "texts": t, "sentences": sentences, "present": present, "scale": torch.full((3,), 4.0), "words": torch.arange(3),
            "levels": torch.tensor([1, 1, 1]),
        }
    )  # fmt: skip
    own = both_ways(F.normalize(frames, dim=-1).mean(dim=1), t, 0.25).item()
    order = unaligned_loss(frames[[0, 2]], sentences[[0, 2]], present[[0, 2]], 4.0).item()
    assert found["loss_own"].item() == pytest.approx(own, abs=1e-6)
    assert found["loss"].item() == pytest.approx(own + 0.5 * order, abs=1e-5)


def stream(folder: Path, table: Path, **options: object) -> TextData:
    made = make_prepared(folder / "prepared", videos=2, patients=2, size=16, **options)  # type: ignore[arg-type]
    write_narrations(made.labels, table)
    texts = read_texts([table], made.prepared, None)
    asked = {"text": Asked(levels=("keystep", "abstract"), parts=PARTS), "below": Asked("below", count=2)}
    clip = ClipSettings(frames=2, size=16, stride=2, rate=None)
    views = dict.fromkeys(PARTS, Clip(augment="none"))
    return TextData(
        made.prepared, [0, 1], views, clip, AugmentPolicies(), texts=texts, asked=asked, reader=small_text().reader
    )


def test_clips_in_order_are_each_of_their_share_of_the_time(tmp_path: Path) -> None:
    data = stream(tmp_path, tmp_path / "said.csv", frames=40)
    found: dict[str, Tensor] = {}
    for position in range(len(data)):
        _, where, _ = data.place(position)
        spans = data.spans(data.anchors[where], {"text": [], "below": []}, data.recordings[where][0])
        found[data.texts.words(data.anchors[where])] = torch.tensor([spans[name] for name in PARTS])
        assert data[position]["targets"]["span"].tolist() in ([0, 1600], [0, FOREVER])
        assert set(data[position]["views"]) == set(PARTS)
    for words, spans in found.items():
        length = 1.6 if words.startswith("ring") else 40 / 25  # a step, and the whole
        share = torch.arange(4) * length / 4
        torch.testing.assert_close(spans, torch.stack([share, share + length / 4], dim=1))


def test_clips_in_order_need_a_frame_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream(tmp_path, tmp_path / "said.csv", frames=40)
    monkeypatch.setattr(type(data.prepared), "fps", lambda self, row: None)
    with pytest.raises(DataError, match=r"the frame rate of a recording is not known.*--recipe clip"):
        TextData(
            data.prepared, [0], data.views, data.clip, data.policies, texts=data.texts, asked=data.asked, reader=data.reader
        )  # fmt: skip
