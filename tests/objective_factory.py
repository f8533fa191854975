"""Every method of pretraining, small enough for a test: settings, an encoder, batches of its views.

A new method adds its line to SMALL, and `tests/recipes/test_pretrain_every.py` holds it to what every method promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from text_factory import WORDS, small_text
from torch import Tensor

from recipes.encoders.base import Geometry, VideoEncoder
from recipes.encoders.text import NOTHING
from recipes.encoders.videomae import fresh_videomae
from recipes.objective import (
    ABOUT,
    CAMERA,
    EXO,
    IMU,
    LABEL,
    LEVEL,
    MOMENT,
    NOUNS,
    SPAN,
    TEAM,
    VERBS,
    Batch,
    Objective,
    Words,
)  # fmt: skip
from recipes.pretrain import method

# By method: settings of its objective beside which nothing else is made smaller.
SMALL: dict[str, dict[str, Any]] = {
    "discovr": {
        "views": 2, "frame_depth": 1, "head_hidden": 16, "head_bottleneck": 8, "head_outputs": 16, "prototypes": 8, "decoder_depth": 1,
        "decoder_width": 24, "decoder_heads": 2,
    },
    "videomae": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"head_hidden": 16, "head_outputs": 8},
    "everest": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2},
    "vicmae": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2, "head_hidden": 16, "head_outputs": 8},
    "marlin": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2, "critic_hidden": 16, "normalise_target": True},
    "mme": {"decoder_width": 24, "decoder_heads": 2, "reach": 2},
    "smile": {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2, "object_sizes": (0.3, 0.6)},
    "crossvideomae": {
        "decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2, "head_hidden": 16, "head_outputs": 8, "frame_depth": 1, "frame_mask_ratio": 0.5,
    },
    "rspnet": {"head_hidden": 16, "head_outputs": 8},
    "tt": {"head_hidden": 16, "skips": (1, 2)},
    "order": {"head_hidden": 16},
    "oddoneout": {"head_hidden": 16, "clips": 4},
    "cpnet": {"head_hidden": 16, "head_outputs": 8},
    "statistics": {"head_hidden": 16, "blocks": 2},
    "comix": {"head_hidden": 16, "head_outputs": 8, "confidence": 0.3},
    "moco": {"rho": 3, "head_hidden": 16, "head_outputs": 8, "queue": 16},
    "cvrl": {"head_hidden": 16, "head_outputs": 8},
    "vthcl": {"head_hidden": 16, "head_outputs": 8},
    "iic": {"head_hidden": 16, "head_outputs": 8},
    "dsm": {"head_hidden": 16, "head_outputs": 8},
    "coclr": {"head_hidden": 16, "head_outputs": 8, "queue": 16, "positives": 2, "alone": 0.25, "teacher_momentum": 0.99},
    "vididi": {"head_hidden": 16, "head_outputs": 8},
    "byol": {"rho": 3, "head_hidden": 16, "head_outputs": 8},
    "swav": {"crops": 2, "head_hidden": 16, "head_outputs": 8, "prototypes": 6, "queue": 16},
    "dino": {"crops": 2, "head_hidden": 16, "head_bottleneck": 8, "head_outputs": 16, "standardise": True},
    "vjepa": {"predictor_depth": 1, "predictor_width": 24, "predictor_heads": 2},
    "salt": {"predictor_depth": 1, "predictor_width": 24, "predictor_heads": 2},
    "advise": {"speeds": (1, 2), "temporal_depth": 1, "head_hidden": 16},
    "scale": {"clips": 4, "set_depth": 1, "set_width": 16, "set_heads": 2, "head_hidden": 16},
    "clip": {"outputs": 8},
    "surgvlp": {"outputs": 8, "transcripts": 2},
    "hecvl": {"outputs": 8, "below": 2},
    "peskavlp": {"outputs": 8, "below": 3, "weight_procedure": 20.0},
    "ophclip": {"outputs": 8, "bank": 16, "retrieved": 2},
    "tvts": {"outputs": 8, "steps": 2, "sorter_width": 16, "sorter_depth": 1, "sorter_heads": 2},
    "weaksvr": {"outputs": 8, "clips": 3, "sentences": 2},
    "xclip": {"outputs": 8, "prompt_depth": 1, "prompt_heads": 2},
    "clipvip": {"outputs": 8, "proxies": 2},
    "hbi": {"outputs": 8, "words": (4, 2), "frames": (2, 1), "head_hidden": 16, "predictor_width": 8, "coalitions": 3},
    "gram": {"outputs": 8, "modalities": ("motion", "second", "camera", "beside", "below"), "drawn": 2},
    "symile": {"outputs": 8, "modalities": ("motion", "camera", "beside"), "drawn": 2},
    "mcn": {"outputs": 8, "modalities": ("second", "below"), "drawn": 2, "clusters": 4, "memory": 12},
    "cecl": {"head_hidden": 16, "head_outputs": 8},
    "egonce": {"outputs": 8},
    "chirality": {"width": 8, "depth": 1, "heads": 2, "decoder_hidden": 16},
    "imu": {"channels": 3, "width": 8, "head_hidden": 16, "head_outputs": 8},
    "previps": {
        "joints": 5, "steps": 2, "bins": 4, "pose_width": 8, "pose_depth": 1, "pose_heads": 2, "head_hidden": 16, "head_outputs": 8,
    },
    "procedure": {"outputs": 8, "concepts": 6, "following": 2, "order_depth": 1, "order_heads": 2},
    "cmc": {"head_hidden": 16, "head_outputs": 8},
    "egoexonce": {"outputs": 8},
    "echoprime": {"outputs": 8, "clips": 3, "views": 4},
}  # fmt: skip
# Of a method that learns from labels; a run takes those of its labels.
CLASSES = ("A2C", "A4C", "PLAX")
# What a short run of a method needs beyond its SMALL and the common settings of test_pretrain_every: key=value, as on the command line.
SHORT: dict[str, tuple[str, ...]] = {
    "discovr": ("objective.standardise=true", "objective.teacher_momentum=0.9", "objective.weight_cluster=0.1"),
    # From random weights, predicting pixels first brings all clips together; a collapse would be a RankMe of 1.
    **dict.fromkeys(
        ("videomae", "everest", "vicmae", "crossvideomae", "marlin", "mme", "smile"),
        ("monitor.rankme.drop=0.2", "monitor.deviation.drop=0.01"),
    ),
    # From random weights, what all clips have in common grows at first. These heads do not see it (`Pretext.read`), and nothing shrinks it.
    "oddoneout": ("monitor.deviation.drop=0.1",),
    "cpnet": ("monitor.deviation.drop=0.1",),
    # A clip and its residual frames first come together, and with them everything. With what changes over time to read, as in the recipe, the way
    # out is quick: 40 of the 80 steps.
    "iic": ("objective.head_motion=true",),
    # When positives begin to be named the loss falls whatever was learned: like is compared with like.
    "coclr": ("objective.alone=1",),
    "vjepa": (
        "monitor.rankme.drop=0.2",
        "monitor.deviation.drop=0.05",
    ),  # as videomae; after step 60 they part again
    # Its weight in SMALL is so that tests see the order of steps; alone, that would let features of a few rings come together at first.
    "peskavlp": ("objective.weight_procedure=0.1",),
    # Maxima over tokens that are all alike say little: the way out takes longer than 80 steps, and goes on to their end.
    "hbi": ("monitor.rankme.drop=0.2", "monitor.deviation.drop=0.1"),
    # As iic: a clip and its motion first come together, and with them everything; with what changes over time to read, as in the recipes, the way out
    # is quick.
    "symile": ("objective.motion=true", "monitor.deviation.drop=0.2"),
    # Of a ring it keeps the step that narrations name, and these know three views: 2.3 of 6.5 dimensions.
    "procedure": ("monitor.rankme.drop=0.2", "monitor.deviation.drop=0.1"),
    # So do their poses; and a wrist that swings knows but how far a ring beats, and when.
    "previps": ("monitor.rankme.drop=0.2", "monitor.deviation.drop=0.1"),
    "imu": ("objective.head_motion=true", "monitor.rankme.drop=0.2", "monitor.deviation.drop=0.1"),
    # Of its two losses that of stage 2; both stages: test_pretrain_latents.
    "salt": ("objective.stage1=0", "monitor.rankme.drop=0.2", "monitor.deviation.drop=0.05"),
}


# What a short run learns from, where it is not rings that beat: of a beat that repeats itself, nobody could tell the order of two clips.
RECORDINGS: dict[str, str] = {"order": "fading"}


# What falls in a short run, of a line of the log, where it is not the loss. A loss against a moving target can rise while its student learns: what
# counts is how far the student is from the target, KL = H(P_t, P_s) - H(P_t).
WATCHED: dict[str, Callable[[Mapping[str, float]], float]] = {
    "discovr": lambda row: row["loss_video"] - row["teacher_entropy_video"],
    "marlin": lambda row: row["loss_reconstruction"],  # the critic's loss follows the autoencoder's
    "mcn": lambda row: row["loss_own"],  # when centroids are found, what they ask is added
}


def small_encoder(frames: int = 4, size: int = 32, width: int = 24) -> VideoEncoder:
    """Two blocks, tubelets of 2 frames, patches of 8 pixels; the same weights every time."""
    return fresh_videomae(
        Geometry(frames=frames, size=size), seed=0, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * width,
        patch_size=8, tubelet_size=2,
    )  # fmt: skip


def build(name: str, encoder: VideoEncoder | None = None, **settings: Any) -> Objective:
    """The method `name` around a small encoder, or another, in training mode; the same weights every time."""
    kind = method(name)
    torch.manual_seed(0)
    learned = {"classes": CLASSES} if kind.labelled else {}
    made = kind.Settings(**{**SMALL[name], **learned, **settings})
    with_words = (small_text(),) if kind.texts else ()
    return kind(encoder or small_encoder(), made, *with_words).train()


def make_batch(objective: Objective, count: int = 6, seed: int = 0) -> Batch:
    """Moving patterns in the shapes of the objective's views: clips of one sample have something in common."""
    draw = torch.Generator().manual_seed(seed)
    geometry = objective.encoder.geometry
    scene = torch.randn(count, 1, 3, geometry.size, geometry.size, generator=draw)
    clips = {}
    for name, view in (*objective.views.items(), *objective.labelled.items()):
        frames = max(1, round(geometry.frames * view.length))
        still = scene + 0.3 * torch.randn(scene.shape, generator=draw)
        clips[name] = torch.stack([still[:, 0].roll(2 * t, dims=-1) for t in range(frames)], dim=1)
    targets = {LABEL: torch.arange(count) % len(CLASSES)} if objective.labelled else {}
    if objective.together:  # moments of three, two, and one recording; one of the first is of another team
        numbers = torch.arange(count)
        moments = numbers // 6 * 3 + torch.tensor([0, 0, 0, 1, 1, 2])[numbers % 6]
        targets |= {MOMENT: moments, TEAM: (numbers % 6 == 2).long(), CAMERA: numbers % 4, EXO: numbers % 3 == 0}
    targets |= {
        f"{name}_missing": torch.arange(count) % 3 == 1 for name, view in objective.views.items() if view.across
    }
    targets |= {name: make_signal(name, objective, count, draw) for name in objective.signals}
    texts = {name: make_words(count, asked.count, draw) for name, asked in objective.texts.items()}
    if texts:
        targets[LEVEL] = torch.arange(count) % 4 - 1 if objective.silent else torch.arange(count) % 3
        # Each text is about two recordings; the third and the fourth sample are about times that overlap, all others about times that do not.
        number = torch.arange(count)
        targets[ABOUT] = torch.stack([number, number.bitwise_xor(1)], dim=1)
        start = 2000 * number - 1500 * (number == 3)
        targets[SPAN] = torch.stack([start, start + 1000], dim=1)
        if objective.acts:  # the first two say the same, the third does the same to something else
            verbs, nouns = torch.arange(count) // 3, torch.tensor([0, 0, 1, 2, 2, 3])[torch.arange(count) % 6]
            targets |= {VERBS: listed(verbs, 4), NOUNS: listed(nouns, 8), EXO: torch.arange(count) % 2 == 0}
        for words in texts.values():
            words.tokens[targets[LEVEL] < 0], words.numbers[targets[LEVEL] < 0] = NOTHING, NOTHING
    return Batch(clips, torch.arange(count) + 100, targets, torch.arange(count), texts)


def make_signal(name: str, objective: Objective, count: int, draw: torch.Generator) -> Tensor:
    """Numbers over time, of which the first sample has none, and some of the others lack the beginning."""
    settings = objective.settings
    shape = (20, settings.channels) if name == IMU else (6, settings.joints, 2)  # type: ignore[attr-defined]
    signal = torch.rand(count, *shape, generator=draw)
    signal[::3, :2] = torch.nan
    signal[0] = torch.nan
    return signal


def listed(first: Tensor, places: int) -> Tensor:
    """One number of each sample and nothing else: (B,) -> (B, places), -1 beside it."""
    return torch.cat([first.unsqueeze(1), torch.full((len(first), places - 1), -1)], dim=1)


def make_words(count: int, texts: int, draw: torch.Generator) -> Words:
    """Texts of one or two sections of 3 to 5 words; of several, every other sample lacks the last. The second sample says what the first does."""
    tokens = torch.randint(4, len(WORDS), (count, texts, 2, 5), generator=draw)
    numbers = torch.arange(count * texts).view(count, texts)
    tokens[::2, :, 0, 3:] = NOTHING
    tokens[::3, :, 1] = NOTHING
    tokens[1], numbers[1] = tokens[0], numbers[0]
    if texts > 1:
        tokens[1::2, -1], numbers[1::2, -1] = NOTHING, NOTHING
    return Words(tokens, numbers)
