"""X-CLIP and CLIP-ViP, whose frames talk, each against its equation on vectors of a few numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from alignment_factory import rows
from objective_factory import build, make_batch
from torch.nn import functional as F

from recipes.encoders import open_encoder
from recipes.parts.alignment import both_ways, of_one_group, sources_nce
from recipes.parts.prompts import Prompts
from recipes.pretrain.clipvip import CLIPViP
from recipes.pretrain.xclip import XCLIP

AXES = torch.eye(8)


def test_a_prompt_is_of_its_clip_and_its_text_alone() -> None:
    torch.manual_seed(0)
    prompts = Prompts(8, depth=2, heads=2, alpha=0.5)
    texts, patches = rows(3, 8), rows(2, 5, 8, seed=1)
    said = prompts(texts, patches)
    assert said.shape == (2, 3, 8)
    torch.testing.assert_close(prompts(texts[[2]], patches[[1]])[0, 0], said[1, 2])
    torch.testing.assert_close(prompts(texts, patches[:, [4, 2, 0, 1, 3]]), said)  # places have no order
    assert not said[0].allclose(said[1], atol=1e-3)
    prompts.alpha.data.zero_()
    torch.testing.assert_close(prompts(texts, patches), texts.expand(2, -1, -1))


def test_xclip_compares_each_clip_with_texts_in_its_own_words() -> None:
    objective = build("xclip")
    assert isinstance(objective, XCLIP)
    v, patches, t, scale = rows(4, 8), rows(4, 5, 8, seed=2), rows(4, 8, seed=1), torch.tensor(4.0)
    apart = of_one_group(torch.tensor([5, 7, 5, 9]))
    said = F.normalize(objective.prompts(t, patches), dim=-1)
    scores = 4 * torch.einsum("id,ijd->ij", F.normalize(v, dim=-1), said)
    kept = scores.masked_fill(apart & ~torch.eye(4).bool(), -torch.inf)
    own = torch.arange(4)
    expected = (F.cross_entropy(kept, own) + F.cross_entropy(kept.T, own)) / 2
    assert objective.prompted(v, patches, t, scale, apart).item() == pytest.approx(expected.item(), abs=1e-5)
    objective.prompts.alpha.data.zero_()
    plain = both_ways(v, t, 0.25, apart=apart).item()
    assert objective.prompted(v, patches, t, scale, apart).item() == pytest.approx(plain, abs=1e-5)


def test_xclip_is_the_sum_of_its_terms_and_leaves_messages_with_the_encoder(tmp_path: Path) -> None:
    objective = build("xclip", weight_plain=0.5)
    assert isinstance(objective, XCLIP)
    losses = objective(make_batch(objective))
    both = losses["loss_prompted"] + 0.5 * losses["loss_plain"]
    assert losses["loss"].item() == pytest.approx(both.item(), abs=1e-6)
    losses["loss"].backward()
    encoder = objective.final_encoder()
    for module in (encoder.messages, encoder.temporal, objective.prompts, objective.look):
        assert module is not None
        assert any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    encoder.save(tmp_path / "encoder")
    again = open_encoder(tmp_path / "encoder")
    assert again.messages is not None
    assert again.temporal is not None
    further = build("xclip", again)  # goes on from them
    assert further.encoder.messages is again.messages
    assert build("xclip", temporal_depth=0).encoder.temporal is None


@pytest.mark.parametrize(("method", "added"), [("xclip", ("messages", "temporal")), ("clipvip", ("proxies",))])
def test_what_frames_talk_by_learns_also_where_the_encoder_is_frozen(method: str, added: tuple[str, ...]) -> None:
    encoder = build(method).encoder  # that has them already
    encoder.requires_grad_(False)
    objective = build(method, encoder)
    assert not any(p.requires_grad for p in encoder.model.parameters())
    objective(make_batch(objective))["loss"].backward()
    for name in added:
        assert any(bool(p.grad.any()) for p in getattr(encoder, name).parameters())


def test_all_texts_of_a_clip_fit_by_hand() -> None:
    """Two clips on the axes; the first has a text and a caption, at cosines 1 and 0.6, the second a text at cosine 1."""
    clips = AXES[:2]
    texts = torch.stack([torch.stack([AXES[0], 0.6 * AXES[0] + 0.8 * AXES[2]]), torch.stack([AXES[1], 9 * AXES[5]])])
    present = torch.tensor([[True, True], [True, False]])
    e = math.exp
    there = [-math.log(e(x) / (e(x) + 1)) for x in (1, 0.6)] + [-math.log(e(1) / (e(1) + 2))]
    back = [-math.log(e(x) / (e(x) + 1)) for x in (1, 0.6, 1)]
    expected = (sum(there) + sum(back)) / 6
    assert sources_nce(clips, texts, 1.0, present).item() == pytest.approx(expected, abs=1e-5)
    apart = torch.ones(2, 2, dtype=torch.bool)
    assert sources_nce(clips, texts, 1.0, present, apart=apart).item() == pytest.approx(0.0, abs=1e-6)
    one = torch.tensor([[True, False], [True, False]])
    found, plain = rows(2, 8), rows(2, 2, 8, seed=1)
    expected = both_ways(found, plain[:, 0], 0.5).item()
    assert sources_nce(found, plain, 0.5, one).item() == pytest.approx(expected, abs=1e-5)
    assert sources_nce(found, plain, 0.5, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


def test_clipvip_is_the_sum_of_its_terms_and_asks_frames_of_captions_alone() -> None:
    objective = build("clipvip", weight_frame=0.5)
    assert isinstance(objective, CLIPViP)
    v, f, s, c = (rows(3, 8, seed=seed) for seed in range(4))
    captioned = torch.tensor([True, False, True])
    embedded = {
        "clips": v, "frames": f, "texts": s, "captions": c, "captioned": captioned, "scale": torch.full((3,), 4.0), "words": torch.arange(3),
    }  # fmt: skip
    found = objective.compare(embedded)
    frame = both_ways(f[[0, 2]], c[[0, 2]], 0.25).item() * 2 / 3
    present = torch.stack([torch.ones(3, dtype=torch.bool), captioned], dim=1)
    video = sources_nce(v, torch.stack([s, c], dim=1), 0.25, present).item()
    assert found["loss_frame"].item() == pytest.approx(frame, abs=1e-5)
    assert found["loss"].item() == pytest.approx(video + 0.5 * frame, abs=1e-5)
    embedded["captioned"] = torch.zeros(3, dtype=torch.bool)
    alone = objective.compare(embedded)
    assert alone["loss_frame"].item() == 0
    assert alone["loss"].item() == pytest.approx(both_ways(v, s, 0.25).item(), abs=1e-5)


def test_a_frame_is_held_still_and_proxies_learn() -> None:
    objective = build("clipvip")
    assert isinstance(objective, CLIPViP)
    batch = make_batch(objective)
    embedded = objective.embed(batch)
    batch.clips["clip"] = batch["clip"].clone()
    batch.clips["clip"][:, 0] += 3  # any frame but the middle one
    moved = objective.embed(batch)
    torch.testing.assert_close(moved["frames"], embedded["frames"])
    assert not moved["clips"].allclose(embedded["clips"], atol=1e-3)
    objective(batch)["loss"].backward()
    proxies = objective.encoder.proxies
    assert proxies is not None
    assert proxies.tokens.shape == (2, 24)
    assert proxies.tokens.grad is not None
    assert bool(proxies.tokens.grad.any())
