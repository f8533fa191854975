"""Methods that align clips with words, each against its equation on vectors of a few numbers."""

from __future__ import annotations

import math

import pytest
import torch
from objective_factory import build, make_batch
from torch import Tensor
from torch.nn import functional as F

from recipes.objective import LEVEL, Progress
from recipes.parts.levels import LevelSettings, hierarchy_loss, mean_text, no_strangers
from recipes.pretrain.clip import CLIP
from recipes.pretrain.ophclip import OphCLIP
from recipes.pretrain.peskavlp import PeskaVLP
from recipes.pretrain.surgvlp import SurgVLP


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(first: Tensor, second: Tensor) -> list[list[float]]:
    found: list[list[float]] = (F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T).tolist()
    return found


def nce(own: float, others: list[float], tau: float) -> float:
    """- log of the share of the partner."""
    return -own / tau + math.log(sum(math.exp(one / tau) for one in (own, *others)))


def test_clip_by_hand_and_the_same_words_are_no_strangers() -> None:
    objective = build("clip")
    assert isinstance(objective, CLIP)
    v, t = rows(4, 8), rows(4, 8, seed=1)
    words = torch.tensor([5, 7, 5, 9])  # the first and the third say the same
    found = objective.compare({"clips": v, "texts": t, "scale": torch.full((4,), 4.0), "words": words})
    scores = cosines(v, t)
    expected = 0.0
    for i in range(4):
        strangers = [j for j in range(4) if j != i and words[j] != words[i]]
        expected += nce(scores[i][i], [scores[i][j] for j in strangers], 0.25) / 8
        expected += nce(scores[i][i], [scores[j][i] for j in strangers], 0.25) / 8
    assert found["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert found["scale"].item() == 4
    assert objective.alignment.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_other_words_about_the_same_time_are_no_strangers_unless_told_so() -> None:
    """Two transcribers of one moment, a report of that recording, and a moment of another one."""
    objective = build("clip")
    assert isinstance(objective, CLIP)
    v, t, scores = rows(4, 8), rows(4, 8, seed=1), cosines(rows(4, 8), rows(4, 8, seed=1))
    when = {
        "row": torch.tensor([0, 0, 0, 1]),
        "about": torch.tensor([[0], [0], [0], [1]]),
        "span": torch.tensor([[0, 2000], [1000, 3000], [0, 2**62], [0, 2000]]),
    }
    plain = {"clips": v, "texts": t, "scale": torch.full((4,), 4.0), "words": torch.arange(4)}
    expected = 0.0
    for i in range(4):
        strangers = [3] if i < 3 else [0, 1, 2]
        expected += nce(scores[i][i], [scores[i][j] for j in strangers], 0.25) / 8
        expected += nce(scores[i][i], [scores[j][i] for j in strangers], 0.25) / 8
    assert objective.compare({**plain, **when})["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert objective.embed(make_batch(objective)).keys() >= {"row", "about", "span"}
    as_in_the_paper = build("clip", same_time="strangers")
    assert isinstance(as_in_the_paper, CLIP)
    assert not as_in_the_paper.embed(make_batch(objective)).keys() & {"row", "about", "span"}


def test_clip_with_the_sigmoid_loss_begins_as_siglip_does() -> None:
    objective = build("clip", loss="sigmoid")
    assert isinstance(objective, CLIP)
    assert objective.alignment.log_scale.exp().item() == pytest.approx(10)
    assert objective.alignment.bias.item() == -10
    v, t = torch.eye(8)[:2], torch.eye(8)[:2]
    found = objective.compare(
        {
            "clips": v,
            "texts": t,
            "scale": torch.full((2,), 10.0),
            "bias": torch.full((2,), -10.0),
            "words": torch.arange(2),
        }
    )
    assert found["loss"].item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-10)), abs=1e-6)
    loss = objective(make_batch(objective))["loss"]
    loss.backward()
    assert objective.alignment.bias.grad is not None
    assert objective.alignment.log_scale.grad is not None


def test_the_learned_scale_stays_below_its_bound() -> None:
    objective = build("clip")
    objective.alignment.log_scale.data.fill_(9.0)  # type: ignore[union-attr]
    objective.after_step(None)  # type: ignore[arg-type]
    assert objective.alignment.log_scale.exp().item() == pytest.approx(100, rel=1e-5)  # type: ignore[union-attr]


def test_surgvlp_is_the_mean_of_its_three_terms() -> None:
    objective = build("surgvlp")
    assert isinstance(objective, SurgVLP)
    v, a, b = rows(2, 8), rows(2, 8, seed=1), rows(2, 2, 8, seed=2)
    present = torch.tensor([[True, True], [True, False]])
    found = objective.compare({"clips": v, "texts": a, "beside": b, "present": present, "words": torch.arange(2)})
    tau, scores = 0.1, cosines(v, a)
    there = sum(nce(scores[i][i], [scores[i][1 - i]], tau) for i in range(2)) / 2
    back = sum(nce(scores[i][i], [scores[1 - i][i]], tau) for i in range(2)) / 2
    one, two = (
        cosines(v, b[:, k]) for k in range(2)
    )  # of both clips with the first and the second text of each sample
    first = math.exp(one[0][0] / tau) + math.exp(two[0][0] / tau)
    others = math.exp(one[0][1] / tau) + math.exp(one[1][0] / tau) + math.exp(two[1][0] / tau)
    second = math.exp(one[1][1] / tau)
    strangers = math.exp(one[1][0] / tau) + math.exp(two[1][0] / tau) + math.exp(one[0][1] / tau)
    mil = -(math.log(first / (first + others)) + math.log(second / (second + strangers))) / 2
    assert found["loss_info_nce"].item() == pytest.approx(there, abs=1e-4)
    assert found["loss_nt_xent"].item() == pytest.approx(0.75 * there + 0.25 * back, abs=1e-4)
    assert found["loss_mil_nce"].item() == pytest.approx(mil, abs=1e-4)
    assert found["loss"].item() == pytest.approx((there + 0.75 * there + 0.25 * back + mil) / 3, abs=1e-4)
    assert not objective.alignment.log_scale.requires_grad
    assert objective.alignment.log_scale.exp().item() == pytest.approx(10)


def test_two_transcribers_of_one_moment_are_no_strangers_in_any_term_of_surgvlp() -> None:
    """Each is the anchor of a sample, beside the other."""
    objective = build("surgvlp")
    assert isinstance(objective, SurgVLP)
    told = {
        "clips": torch.ones(2, 8), "texts": torch.ones(2, 8), "beside": torch.ones(2, 1, 8), "present": torch.ones(2, 1, dtype=torch.bool),
        "words": torch.arange(2),
    }  # fmt: skip
    when = {"row": torch.zeros(2, dtype=torch.int64), "about": torch.zeros(2, 1, dtype=torch.int64)}
    same = objective.compare({**told, **when, "span": torch.tensor([[0, 2000], [1000, 3000]])})
    assert same["loss"].item() == pytest.approx(0.0, abs=1e-6)
    later = objective.compare({**told, **when, "span": torch.tensor([[0, 2000], [2000, 3000]])})
    strangers = {"loss_info_nce": 1, "loss_nt_xent": 1, "loss_mil_nce": 2}  # that are as near as the partner
    for term, count in strangers.items():
        assert later[term].item() == pytest.approx(math.log(1 + count), abs=1e-5)


def test_a_clip_without_a_second_transcript_still_learns_from_the_first() -> None:
    objective = build("surgvlp")
    batch = make_batch(objective)
    batch.texts["beside"].tokens.fill_(-1)
    batch.texts["beside"].numbers.fill_(-1)
    losses = objective(batch)
    assert losses["loss_mil_nce"].item() == 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    assert any(bool(p.grad.any()) for p in objective.encoder.parameters() if p.grad is not None)


def test_the_mean_of_texts_counts_each_alike() -> None:
    texts = torch.tensor([[[9.0, 0.0], [0.0, 0.1], [3.0, 3.0]], [[1.0, 1.0]] * 3])
    present = torch.tensor([[True, True, False], [False] * 3])
    assert mean_text(texts, present).tolist() == [
        [0.5, 0.5],
        [0.0, 0.0],
    ]  # averaged first, the long one would be all that counts


def test_hecvl_by_hand() -> None:
    """Two moments and two steps, one of which has something below."""
    settings = LevelSettings(temperature=0.5)
    v, t, c = rows(4, 3), rows(4, 3, seed=1), rows(4, 3, seed=2)
    levels, has = torch.tensor([0, 0, 1, 1]), torch.tensor([False, False, True, False])
    c = c * has.unsqueeze(1)
    embedded = {"clips": v, "texts": t, "below": c, "has_below": has, "words": torch.arange(4), "levels": levels}
    found = hierarchy_loss(embedded, settings)
    scores, expected, tau = cosines(v, t), 0.0, 0.5
    for i, other in enumerate((1, 0, 3, 2)):  # strangers are of the same level
        there, back = nce(scores[i][i], [scores[i][other]], tau), nce(scores[i][i], [scores[other][i]], tau)
        both = there + 0.75 * there + 0.25 * back
        weight = 1.0 if i < 2 else 1 / 3
        expected += weight * both * (0.25 if i == 2 else 0.5)
    # The other step has nothing below: nobody is a stranger there, and what is left costs nothing.
    assert found["loss"].item() == pytest.approx(expected / 4, abs=1e-5)
    assert found["loss_below"].item() == 0
    two = {
        **embedded,
        "has_below": torch.tensor([False, False, True, True]),
        "below": rows(4, 3, seed=2) * (levels.unsqueeze(1) > 0),
    }
    below = [cosines(x, two["below"]) for x in (v, t)]
    by_hand = sum(nce(one[i][i], [one[i][5 - i]], tau) for one in below for i in (2, 3)) / 3 / 4 / 4
    assert hierarchy_loss(two, settings)["loss_below"].item() == pytest.approx(by_hand, abs=1e-5)


def test_peskavlp_wants_the_order_of_steps() -> None:
    objective = build("peskavlp", below=3, weight_procedure=1.0)
    assert isinstance(objective, PeskaVLP)
    assert tuple(objective.views) == ("clip", "step 1", "step 2", "step 3")
    embedded = objective.embed(make_batch(objective))
    steps = 5 * torch.eye(8)[:3].expand(6, 3, 8)
    told = {**embedded, "steps": steps, "count": torch.tensor([3, 3, 3, 3, 3, 3])}
    right = objective.compare({**told, "step_clips": steps})["loss_procedure"]
    wrong = objective.compare({**told, "step_clips": steps.flip(1)})["loss_procedure"]
    assert right < wrong
    single = {**told, "step_clips": steps, "count": torch.ones(6, dtype=torch.int64)}
    assert objective.compare(single)["loss_procedure"].item() == 0  # one step has no order


def test_ophclip_takes_silent_clips_for_titles() -> None:
    objective = build("ophclip", bank=5, retrieved=1, begin=0)
    assert isinstance(objective, OphCLIP)
    axes = torch.eye(8)
    objective.bank.rows.copy_(torch.stack([axes[0], axes[0], axes[1], axes[5], axes[6]]))
    objective.bank.recordings.copy_(torch.tensor([4, -1, 5, 6, 7]))  # the second row is of a narrated recording
    v = torch.stack([axes[0], axes[5], axes[6]])
    t = torch.stack([(axes[0] + axes[1]) / math.sqrt(2), axes[5], axes[6]])
    levels = torch.tensor([2, 2, 0])
    embedded = {
        "clips": v, "texts": t, "scale": torch.full((3,), 2.0), "words": torch.arange(3), "levels": levels, "recordings": torch.arange(3),
    }  # fmt: skip
    found = objective.compare(embedded)
    half = math.exp(2 / math.sqrt(2))
    # Title 0: its own clip and the silent row 0 like it; strangers are the clip of the other title and row 3, which that one took. Nobody took rows 2
    # and 4: the clip like row 4 has a narration. Both positives of a title are as near.
    first = math.log((2 * half + 2 * math.exp(0.0)) / half)
    second = math.log((2 * math.exp(2.0) + 2 * math.exp(0.0)) / math.exp(2.0))
    assert found["loss_retrieved"].item() == pytest.approx((first + second) / 3, abs=1e-5)
    assert found["silent"].item() == 0
    assert objective.bank.recordings.tolist()[:3] == [
        -1,
        -1,
        -1,
    ]  # narrated clips are in the bank, and nobody's positives


def test_silent_clips_of_the_batch_teach_the_encoder_what_a_title_says() -> None:
    objective = build("ophclip", bank=4, retrieved=1, begin=0)
    assert isinstance(objective, OphCLIP)
    axes = torch.eye(8)
    near = (axes[0] + axes[2]) / math.sqrt(2)  # silent, and more like the first title's clip than like the second's
    v = torch.stack([axes[0], axes[1], near, axes[3]]).requires_grad_()
    t = torch.stack([axes[0], axes[1], axes[4], axes[5]])
    embedded = {
        "clips": v, "texts": t, "scale": torch.full((4,), 2.0), "words": torch.arange(4), "levels": torch.tensor([2, 2, -1, 0]),
        "recordings": torch.arange(4),
    }  # fmt: skip
    apart = no_strangers(embedded, embedded["levels"])
    loss = objective.of_silent(embedded, torch.tensor(2.0), apart, torch.tensor([True, False, False, False]))
    every = math.exp(2.0) + math.exp(2 / math.sqrt(2)) + 1  # the other title's clip is the only stranger
    each = math.log(every) - (2.0 + 2 / math.sqrt(2)) / 2  # its own clip and the silent one, each by itself
    assert loss.item() == pytest.approx(each / 4, abs=1e-6)
    loss.backward()
    assert v.grad is not None
    assert (v.grad[2] @ t[0]).item() < 0  # nearer to the title
    assert v.grad[3].abs().sum().item() == 0  # a narration has no part in it


def test_ophclip_retrieves_nothing_before_its_towers_have_learned() -> None:
    objective = build("ophclip", bank=16, begin=0.5)
    assert isinstance(objective, OphCLIP)
    batch = make_batch(objective, 12)  # three titles
    objective(batch)  # the bank is filled
    assert objective(batch)["loss_retrieved"].item() == 0
    objective.before_step(Progress(5, 10, 0.5))
    assert objective(batch)["loss_retrieved"].item() > 0


def test_titles_with_the_same_words_are_no_strangers_by_what_they_take() -> None:
    objective = build("ophclip", bank=2, retrieved=1, begin=0)
    assert isinstance(objective, OphCLIP)
    axes = torch.eye(8)
    objective.bank.rows.copy_(axes[:2])
    objective.bank.recordings.copy_(torch.tensor([4, 5]))
    embedded = {
        "clips": axes[:2], "texts": axes[:2], "scale": torch.full((2,), 2.0), "words": torch.zeros(2, dtype=torch.int64),
        "levels": torch.tensor([2, 2]), "recordings": torch.arange(2),
    }  # fmt: skip
    # no strangers: its own clip and the one that it took, as near, and nothing else
    assert objective.compare(embedded)["loss_retrieved"].item() == pytest.approx(math.log(2), abs=1e-6)


def test_ophclip_remembers_silent_clips_and_learns_from_none_of_their_words() -> None:
    objective = build("ophclip", bank=16, begin=0)
    assert isinstance(objective, OphCLIP)
    batch = make_batch(objective)
    assert batch.targets[LEVEL].tolist() == [-1, 0, 1, 2, -1, 0]
    losses = objective(batch)
    assert objective.bank.recordings[:6].tolist() == [0, -1, -1, -1, 4, -1]
    assert losses["silent"].item() == pytest.approx(2 / 6)
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    again = objective(batch)  # the bank is filled now
    assert again["loss_retrieved"].isfinite()
