"""Tokens by which the frames of an image model hear of each other: messages (X-CLIP) and proxies (CLIP-ViP)."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from domains.schema import Strict

ALL = -1  # the frame of a token that sees all others and is seen by them


class MessageSettings(Strict):
    """The shape of `Messages`. width: of the encoder's tokens; depth: its blocks."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class Messages(nn.Module):
    """What each frame tells the others, before every block of an encoder (cross-frame communication: Ni et al., X-CLIP, ECCV 2022).

        m_t = W cls_t,   m <- m + attention over t(norm(m)),   [tokens_t, m_t] through the block, and m_t dropped

    The messages of a block are made anew of what its frames say of themselves.
    """

    def __init__(self, settings: MessageSettings) -> None:
        super().__init__()
        self.settings = settings
        self.blocks = nn.ModuleList(MessageBlock(settings.width, settings.heads) for _ in range(settings.depth))

    def beside(self, block: int, tokens: Tensor, frames: Tensor) -> Tensor:
        """Tokens (S, V, D) that block number `block` is about to see, and behind them the messages of frames (S, t, D), what each says of itself."""
        return torch.cat([tokens, self.blocks[block](frames)], dim=1)


class MessageBlock(nn.Module):
    """(S, t, D), what each frame says of itself -> (S, t, D), messages that have seen each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        messages = self.enter(frames)
        seen = self.norm(messages)
        heard: Tensor = self.attention(seen, seen, seen, need_weights=False)[0]
        return (messages + heard).to(frames.dtype)


class ProxySettings(Strict):
    """The shape of `Proxies`. count: M; width: of the encoder's tokens."""

    count: PositiveInt
    width: PositiveInt


class Proxies(nn.Module):
    """M learned tokens that go through all blocks beside those of a clip, see every frame, and are seen by every token, while tokens of a frame see
    their own frame and the proxies alone (video proxy tokens: Xue et al., CLIP-ViP, ICLR 2023)."""

    def __init__(self, settings: ProxySettings) -> None:
        super().__init__()
        self.settings = settings
        self.tokens = nn.Parameter(0.02 * torch.randn(settings.count, settings.width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (S, V, D) -> (S, V + M, D)."""
        return torch.cat([tokens, self.tokens.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)


def same_frame(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of attention: 0 within a frame and where one of the two is of ALL frames, the least number elsewhere. frames (S,
    V): of each token. Returns (S, 1, V, V)."""
    near, far = frames.unsqueeze(-1), frames.unsqueeze(-2)
    apart = (near != far) & (near != ALL) & (far != ALL)
    added = torch.zeros(apart.shape, dtype=dtype, device=frames.device)
    return added.masked_fill_(apart, torch.finfo(dtype).min).unsqueeze(1)


def mean_of_frames(tokens: Tensor, frames: Tensor, times: int) -> Tensor:
    """What is said of each frame: the mean of its tokens. tokens (S, V, D), frames (S, V) in [0, times) -> (S, times, D); 0 for one without a
    token."""
    where = frames.unsqueeze(-1).expand_as(tokens)
    total = tokens.new_zeros(len(tokens), times, tokens.shape[-1]).scatter_add(1, where, tokens)
    count = tokens.new_zeros(len(tokens), times).scatter_add(1, frames, torch.ones_like(tokens[..., 0]))
    return total / count.clamp_min(1).unsqueeze(-1)
