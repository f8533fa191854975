"""VideoMAE: the target is transformers' own, only hidden patches count, and the recipes are whole."""

import pytest
import torch
from encoder_factory import VIDEOMAE, clips, write_encoder
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from domains.errors import ConfigError
from domains.schema import parse
from recipes.config import RunConfig, recipe_names, recipe_yaml, yaml_layer
from recipes.encoders import open_encoder
from recipes.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from recipes.encoders.tokens import patches
from recipes.objective import Batch
from recipes.parts.masking import draw_masks
from recipes.parts.masks import running_cells, tube_masks
from recipes.parts.pixels import masked_pixel_loss
from recipes.pretrain import METHODS, method
from recipes.pretrain.videomae import VideoMAE

SMALL = {"mask_ratio": 0.5, "decoder_depth": 1, "decoder_width": 12, "decoder_heads": 2}


@pytest.fixture
def objective(tmp_path) -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(open_encoder(write_encoder(tmp_path / "model", "videomae")), VideoMAE.Settings(**SMALL))


def batch() -> Batch:
    return Batch({"clip": clips()}, torch.tensor([4, 9]))


def test_the_target_is_transformers_own(objective: VideoMAE) -> None:
    """With predictions of zero the loss is the mean square of the target, whatever the weights."""
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.zeros_(objective.decoder.leave.bias)
    theirs = VideoMAEForPreTraining(VideoMAEConfig(**VIDEOMAE))
    torch.nn.init.zeros_(theirs.decoder.head.weight)
    torch.nn.init.zeros_(theirs.decoder.head.bias)
    hidden = tube_masks(batch().seeds, objective.encoder.grid, 0.5).hidden[:, 0]
    mask = torch.zeros(2, objective.encoder.tokens, dtype=torch.bool).scatter(1, hidden, True)
    expected = theirs(clips(), bool_masked_pos=mask).loss
    torch.testing.assert_close(objective(batch())["loss"], expected, rtol=1e-5, atol=1e-6)
    assert IMAGENET_MEAN[0] == 0.485  # both un-normalise with the same statistics, so neither matters
    assert IMAGENET_STD[0] == 0.229


def test_pixels_without_normalisation_by_hand(tmp_path) -> None:
    encoder = open_encoder(write_encoder(tmp_path / "model", "videomae"))
    objective = VideoMAE(encoder, VideoMAE.Settings(**SMALL, normalise_target=False))
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.constant_(objective.decoder.leave.bias, 1.0)
    constant = Batch({"clip": torch.full((2, 4, 3, 32, 32), 3.0)}, torch.tensor([1, 2]))
    assert objective(constant)["loss"].item() == pytest.approx(4.0, abs=1e-5)


@torch.no_grad()
def test_only_hidden_patches_count(objective: VideoMAE) -> None:
    """A prediction that is right wherever a token is hidden has no loss, whatever is visible."""
    data = batch()
    masks = tube_masks(data.seeds, objective.encoder.grid, 0.5)
    asked = []
    decoder = objective.decoder.forward

    def spy(tokens, visible, wanted):
        asked.append((visible, wanted))
        return decoder(tokens, visible, wanted)

    objective.decoder.forward = spy
    objective(data)
    assert torch.equal(asked[0][0], masks.visible[:, 0])
    assert torch.equal(asked[0][1], masks.hidden[:, 0])


def test_a_part_of_the_hidden_patches_can_be_predicted(tmp_path) -> None:
    """decode_share: the loss is that of the predicted patches, the encoder sees what it saw."""
    encoder = open_encoder(write_encoder(tmp_path / "model", "videomae"))
    objective = VideoMAE(encoder, VideoMAE.Settings(**{**SMALL, "mask_ratio": 0.75}, decode_share=0.5))
    data = batch()
    masks = tube_masks(data.seeds, encoder.grid, 0.75)
    wanted = running_cells(data.seeds, masks.hidden[:, 0], encoder.grid, 0.5)
    assert wanted.shape[1] < masks.hidden.shape[2]
    predicted = objective.decoder(encoder(data["clip"], masks.visible[:, 0]), masks.visible[:, 0], wanted)
    expected = masked_pixel_loss(predicted, data["clip"], wanted, encoder.patch)
    torch.testing.assert_close(objective(data)["loss"], expected)


@pytest.mark.parametrize("kind", ["random", "noise", "motion"])
def test_other_masks(objective: VideoMAE, kind: str) -> None:
    """MAE-ST, structured noise, MGMAE: the same loss of other tokens; prediction of zero costs the target's mean square."""
    torch.nn.init.zeros_(objective.decoder.leave.weight)
    torch.nn.init.zeros_(objective.decoder.leave.bias)
    objective.settings = VideoMAE.Settings(**SMALL, mask=kind, normalise_over="patch")
    data = batch()
    hidden = draw_masks(objective.settings, data.seeds, data["clip"], objective.encoder.grid, objective.encoder.patch)
    target = patches(data["clip"], *objective.encoder.patch, hidden.hidden[:, 0])
    variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
    expected = ((target - mean) / (variance + 1e-6).sqrt()).square().mean()
    torch.testing.assert_close(objective(data)["loss"], expected)


def test_a_short_run_learns(objective: VideoMAE) -> None:
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    wave = torch.linspace(0, 12, 32).sin().view(1, 1, 1, 1, -1).expand(4, 4, 3, 32, -1).contiguous()
    losses = []
    for step in range(120):
        loss = objective(Batch({"clip": wave}, torch.arange(4) + 10 * step))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_every_parameter_is_used(objective: VideoMAE) -> None:
    objective(batch())["loss"].backward()
    assert not [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", ["discovr", "simclr", "videomae"])
def test_the_recipe_is_whole(name: str) -> None:
    path = recipe_yaml(name)
    config = parse(RunConfig, yaml_layer(path).values, path)
    assert config.method == name
    settings = parse(method(name).Settings, config.objective, path)
    objective = method(name)(open_encoder(config.encoder.name), settings)
    clips = {view: torch.randn(1, 16, 3, 112, 112) for view in objective.views}
    assert objective(Batch(clips, torch.tensor([1])))["loss"].isfinite()
    head = path.read_text().splitlines()
    assert head[0].startswith("#")
    assert any("vfm pretrain" in line for line in head[:8])
    assert any("Needs:" in line for line in head[:10])


def test_a_decoder_has_whole_heads() -> None:
    with pytest.raises(ConfigError, match="decoder_width must be a multiple of decoder_heads"):
        parse(VideoMAE.Settings, {"decoder_width": 100, "decoder_heads": 6}, "here")


def test_methods_by_name() -> None:
    assert {candidate.name for candidate in METHODS} <= set(recipe_names())
    with pytest.raises(ConfigError, match="Did you mean 'discovr'"):
        method("discover")
