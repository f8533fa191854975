"""HBI: words and frames as players of a game, at three levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from domains.store.texts import Asked
from recipes.encoders.base import VideoEncoder
from recipes.encoders.text import TextEncoder
from recipes.objective import Batch, Clip, Losses
from recipes.parts.aligning import Aligning, AligningSettings
from recipes.parts.alignment import both_ways, set_apart
from recipes.parts.contrast import accuracy
from recipes.parts.distributed import gather, places
from recipes.parts.players import LOWEST, Predictor, banzhaf, fit, interaction_loss, merge

LEVELS = ("entity", "action", "event")


class HBI(Aligning):
    """Video-text as game players: hierarchical Banzhaf interaction for cross-modal representation learning (Jin et al., HBI, CVPR 2023).

        loss = mean over levels l of [ InfoNCE both ways(s^l) + w_b KL(P_I^l || P_R^l) ]
             + w_d mean over the upper levels of KL(p^entity || p^l) both ways  + w CLIP(v, t)

    entity: words, and the times of a clip; action, event: these merged to fewer, group by group (`recipes.parts.players.merge`); s: how well texts
    and clips fit, token by token (`fit`), with learned weights of tokens; I: Banzhaf interactions of words and frames of a sample, R: what a small
    network says of them; p: softmax of s over the batch; the entity level is no pupil of the others.

    Conventions of ours: interactions are reckoned over drawn coalitions and at the merged levels, where there are few players, and not told by a
    network that was trained for it beforehand; merged tokens go on as they are, without a block of attention. (The official code draws coalitions,
    and takes the last of a thousand.) Zero-shot answers, retrieval and search compare one vector of each: CLIP's loss of these (w) is added.
    """

    class Settings(AligningSettings):
        """Settings of HBI."""

        words: tuple[PositiveInt, PositiveInt] = Field(
            (8, 4), description="groups of words, at the action and the event level"
        )
        frames: tuple[PositiveInt, PositiveInt] = Field((4, 2), description="groups of a clip's times, at both levels")
        coalitions: PositiveInt = Field(8, description="that are drawn for each sample and level")
        scale: PositiveFloat = Field(1 / 0.07, description="first multiple of cosines, learned")
        temperature: PositiveFloat = Field(0.1, description="of interactions, when they are compared")
        head_hidden: PositiveInt = Field(256, description="hidden width of what says how much a token counts")
        predictor_width: PositiveInt = Field(32, description="width of the network that tells interactions; 4 heads")
        weight_interaction: NonNegativeFloat = Field(1.0, description="w_b")
        weight_distillation: NonNegativeFloat = Field(0.1, description="w_d; more holds a random start back")
        weight_plain: NonNegativeFloat = Field(1.0, description="w, of CLIP's loss of one vector each; 0: as the paper")
        augment: Literal["none", "weak", "strong"] = Field("weak", description="augmentation of the clips")

    name = "hbi"
    paper = "Jin et al., Video-Text as Game Players: Hierarchical Banzhaf Interaction for Cross-Modal Representation Learning, CVPR 2023"
    views: Mapping[str, Clip] = {"clip": Clip()}
    settings: Settings

    def __init__(self, encoder: VideoEncoder, settings: Settings, text: TextEncoder) -> None:
        super().__init__(encoder, settings, text, scale=settings.scale)
        s = settings
        self.views = {"clip": Clip(augment=s.augment)}
        self.texts = {"text": Asked(sources=s.sources)}
        self.token_of = nn.ModuleDict(
            {"words": nn.Linear(text.width, s.outputs), "frames": nn.Linear(encoder.width, s.outputs)}
        )
        self.counts = nn.ModuleDict(
            {
                f"{kind} {level}": nn.Sequential(
                    nn.Linear(s.outputs, s.head_hidden), nn.ReLU(), nn.Linear(s.head_hidden, 1)
                )
                for kind in self.token_of
                for level in LEVELS
            }
        )
        self.predictors = nn.ModuleDict({level: Predictor(s.predictor_width, 4) for level in LEVELS[1:]})

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """clip (B, T, 3, H, W), text -> v, t (B, D); of each level the tokens of both, of length one (B, K, D), and the logarithms of their weights
        (B, K); the loss of interactions (B,); scale and facts (B,)."""
        tokens = self.encoder(batch["clip"])
        read = self.encoder.statistics(tokens) if self.settings.motion else self.encoder.pool(tokens)
        seen = self.token_of["frames"](tokens.unflatten(1, (self.encoder.grid[0], -1)).mean(dim=2))
        hidden, present = self.text.words(batch.texts["text"].tokens[:, 0])
        teams = {
            "words": self.teams("words", self.token_of["words"](hidden), present),
            "frames": self.teams("frames", seen, torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)),
        }
        return {
            "clips": self.alignment.video(read),
            "texts": self.said(batch)[:, 0],
            **{name: value for team in teams.values() for name, value in team.items()},
            "interaction": self.interaction(teams, batch.seeds),
            "scale": self.scale(batch),
            **self.facts(batch),
        }

    def teams(self, kind: str, tokens: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Tokens (B, V, D) of words or frames, which of them there are (B, V) -> of each level the tokens and the logarithms of their weights."""
        groups = self.settings.words if kind == "words" else self.settings.frames
        found: dict[str, Tensor] = {}
        for number, level in enumerate(LEVELS):
            weight = self.counts[f"{kind} {level}"](tokens).squeeze(2).float().masked_fill(~present, LOWEST)
            found |= {f"{kind} {level}": F.normalize(tokens.float(), dim=-1), f"{kind} {level} weight": weight}
            if number < len(groups):
                tokens, present = merge(F.normalize(tokens.float(), dim=-1), present, weight, groups[number])
        return found

    def interaction(self, teams: Mapping[str, Mapping[str, Tensor]], seeds: Tensor) -> Tensor:
        """KL(P_I || P_R) of each sample, the mean of the merged levels (B,)."""
        losses = []
        for level, predictor in self.predictors.items():
            (said, weight_said), (seen, weight_seen) = (
                (team[f"{kind} {level}"], team[f"{kind} {level} weight"]) for kind, team in teams.items()
            )
            cosines = said @ seen.transpose(1, 2)
            truth = banzhaf(
                cosines.float(), weight_said, weight_seen, seeds, self.settings.coalitions, name=f"banzhaf {level}"
            )
            words, frames = (weight > LOWEST / 2 for weight in (weight_said, weight_seen))
            losses.append(interaction_loss(predictor(cosines), truth, words, frames, self.settings.temperature))
        return torch.stack(losses).mean(dim=0)

    def compare(self, embedded: Mapping[str, Tensor]) -> Losses:
        """Of the whole batch -> the loss and its parts, the scale, and the share of clips whose nearest text is their own."""
        s, clips, texts = self.settings, embedded["clips"], embedded["texts"]
        scale, apart = embedded["scale"].mean(), set_apart(embedded)
        place = places(len(clips), clips.device)
        left_out = apart & (place.unsqueeze(1) != torch.arange(apart.shape[1], device=place.device))
        logs = {level: self.compared(embedded, level, scale, left_out) for level in LEVELS}
        own = torch.stack([F.nll_loss(one, place) for level in LEVELS for one in logs[level]]).mean()
        pupils = [
            (teacher.detach().exp() * (teacher.detach() - pupil)).masked_fill(left_out, 0.0).sum(dim=1).mean()
            for level in LEVELS[1:]
            for teacher, pupil in zip(logs["entity"], logs[level], strict=True)
        ]
        distillation, interaction = torch.stack(pupils).mean(), embedded["interaction"].mean()
        plain = both_ways(clips, texts, 1 / scale, apart=apart)
        parts = {
            "loss_own": (1.0, own),
            "loss_interaction": (s.weight_interaction, interaction),
            "loss_distillation": (s.weight_distillation, distillation),
            "loss_plain": (s.weight_plain, plain),
        }
        return {
            "loss": torch.stack([weight * one for weight, one in parts.values()]).sum(),
            **{name: one.detach() for name, (_, one) in parts.items()},
            "scale": scale.detach(),
            "accuracy": accuracy(clips, texts),
        }

    def compared(
        self, embedded: Mapping[str, Tensor], level: str, scale: Tensor, left_out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logarithms of the shares of all clips of the batch for each text of this rank, and of all texts for each clip: (B, N) both."""
        said, weight_said = embedded[f"words {level}"], embedded[f"words {level} weight"]
        seen, weight_seen = embedded[f"frames {level}"], embedded[f"frames {level} weight"]
        there = fit(said, gather(seen), weight_said, gather(weight_seen))
        back = fit(gather(said), seen, gather(weight_said), weight_seen).T
        lowest = torch.finfo(torch.float32).min
        first, second = ((scale * one).masked_fill(left_out, lowest).log_softmax(dim=1) for one in (there, back))
        return first, second
