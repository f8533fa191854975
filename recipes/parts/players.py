"""Words and frames as players of a game: who belongs together, how well two teams fit, and what two players gain by playing together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.precision import as_they_are

LOWEST = torch.finfo(torch.float32).min
FAR = 1e4  # farther than any two tokens of length one


def merge(tokens: Tensor, present: Tensor, weights: Tensor, count: int, neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Tokens of one kind become one: density peaks (Rodriguez and Laio, Science 2014; of k nearest neighbours: Du et al., 2016), as HBI has it.

    tokens (B, V, D), which of them there are (B, V) bool, how much they count (B, V) -> (B, K, D), (B, K) bool; K is at most `count`. Centres are the
    tokens of highest density times distance from the next of higher density; every token goes to the nearest centre, and a group is the mean of its
    tokens by the softmax of their weights, through which alone there are gradients beside those of the tokens.
    """
    total, width = tokens.shape[1:]
    count = min(count, total)
    with torch.no_grad(), as_they_are(tokens):
        both = present.unsqueeze(1) & present.unsqueeze(2)
        apart = torch.cdist(tokens.float(), tokens.float()) / width**0.5
        near = apart.masked_fill(~both, FAR).topk(min(neighbours, total), dim=2, largest=False).values
        density = torch.exp(-near.square().mean(dim=2))
        density = density - 1e-6 * torch.arange(total, device=tokens.device)  # of two alike, the first
        denser = (density.unsqueeze(1) > density.unsqueeze(2)) & both
        reach = apart.masked_fill(~denser, FAR).amin(dim=2)
        centres = (density * reach).masked_fill(~present, -1.0).topk(count, dim=1).indices
        to_centres = apart.gather(2, centres.unsqueeze(1).expand(-1, total, -1))
        lacking = ~present.gather(1, centres)
        group = to_centres.masked_fill(lacking.unsqueeze(1), FAR).argmin(dim=2)
        member = F.one_hot(group, count).float() * present.unsqueeze(2)
    share = weights.float().masked_fill(~present, LOWEST).softmax(dim=1).unsqueeze(2) * member + 1e-9 * member
    merged = share.transpose(1, 2) @ tokens.float() / share.sum(dim=1).clamp_min(1e-9).unsqueeze(2)
    return merged, member.sum(dim=1) > 0


def fit(said: Tensor, seen: Tensor, weight_said: Tensor, weight_seen: Tensor) -> Tensor:
    """How well texts and clips fit (weighted token-wise interaction, Wang et al., DRL, 2022).

        s_ij = 1/2 [ sum over words t of a_it max over frames v of c_tv  +  sum over frames v of b_jv max over words t of c_tv ],   c: cosines

    said (B, T, D), seen (N, V, D) of length one; the weights (B, T), (N, V) are logarithms, LOWEST where there is no token -> (B, N), fp32.
    """
    words, frames = weight_said > LOWEST / 2, weight_seen > LOWEST / 2
    with as_they_are(said):
        cosines = torch.einsum("btd,nvd->bntv", said, seen)
        of_words = cosines.masked_fill(~frames[None, :, None, :], LOWEST).amax(dim=3)
        of_frames = cosines.masked_fill(~words[:, None, :, None], LOWEST).amax(dim=2)
        first = torch.einsum("bnt,bt->bn", of_words, weight_said.softmax(dim=1))
        second = torch.einsum("bnv,nv->bn", of_frames, weight_seen.softmax(dim=1))
    return (first + second) / 2


def worth(cosines: Tensor, weight_said: Tensor, weight_seen: Tensor, words: Tensor, frames: Tensor) -> Tensor:
    """What coalitions are worth: `fit` of those words and frames alone, 0 where there are none of either. cosines (B, T, V), the weights (B, T),
    (B, V), coalitions words (B, M, T), frames (B, M, V) bool -> (B, M)."""
    both = words.unsqueeze(3) & frames.unsqueeze(2)
    kept = cosines.unsqueeze(1).masked_fill(~both, LOWEST)
    of_words = kept.amax(dim=3).where(words, 0.0) * weight_said.unsqueeze(1).masked_fill(~words, LOWEST).softmax(dim=2)
    of_frames = kept.amax(dim=2).where(frames, 0.0) * weight_seen.unsqueeze(1).masked_fill(~frames, LOWEST).softmax(
        dim=2
    )
    found = (of_words.sum(dim=2) + of_frames.sum(dim=2)) / 2
    return found.where(words.any(dim=2) & frames.any(dim=2), 0.0)


@torch.no_grad()
def banzhaf(
    cosines: Tensor, weight_said: Tensor, weight_seen: Tensor, seeds: Tensor, draws_of: int, *, name: str
) -> Tensor:
    """Banzhaf interaction of each word with each frame (Grabisch and Roubens, 1999): what they are worth together beyond what each is alone.

        I_tv = mean over coalitions C of the others of  w(C + t + v) - w(C + t) - w(C + v) + w(C),   w: `worth`

    cosines (B, T, V), weights as in `worth`; coalitions are drawn, `draws_of` for each sample, each player with an even chance: by seeds (B,) on
    the CPU -> (B, T, V); 0 where there is no such player.
    """
    samples, t, v = cosines.shape
    words, frames = (weight > LOWEST / 2 for weight in (weight_said, weight_seen))
    drawn = draws.uniform(seeds, (draws_of, t + v), name=name).to(cosines.device, non_blocking=True) < 0.5
    with_word, with_frame = torch.eye(t, device=cosines.device).bool(), torch.eye(v, device=cosines.device).bool()
    shape = (samples, draws_of, t, v)

    def of(word: bool, frame: bool) -> Tensor:
        """w of every coalition with (or without) each word and each frame: (B, C, T, V)."""
        one = drawn[:, :, :t].unsqueeze(2)  # B, C, 1, T: which words are in it
        other = drawn[:, :, t:].unsqueeze(2)
        one = (one | with_word) if word else (one & ~with_word)
        other = (other | with_frame) if frame else (other & ~with_frame)
        one = (one & words[:, None, None]).unsqueeze(3).expand(*shape, t).flatten(1, 3)
        other = (other & frames[:, None, None]).unsqueeze(2).expand(*shape, v).flatten(1, 3)
        return worth(cosines, weight_said, weight_seen, one, other).view(shape)

    found = (of(True, True) - of(True, False) - of(False, True) + of(False, False)).mean(dim=1)
    return found * (words.unsqueeze(2) & frames.unsqueeze(1))


class Predictor(nn.Module):
    """Interactions told from cosines (B, T, V) -> (B, T, V): a convolution, attention over all pairs, a convolution (HBI's)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, cosines: Tensor) -> Tensor:
        """See the class."""
        hidden = self.enter(cosines.unsqueeze(1)).relu()
        pairs = hidden.flatten(2).transpose(1, 2)
        seen = self.attention(pairs, pairs, pairs, need_weights=False)[0]
        hidden = hidden + seen.transpose(1, 2).unflatten(2, hidden.shape[2:])
        said: Tensor = self.leave(hidden).squeeze(1)
        return said


def interaction_loss(predicted: Tensor, truth: Tensor, words: Tensor, frames: Tensor, temperature: float) -> Tensor:
    """1/2 [ mean over words of KL(P_I || P_R) over frames + mean over frames of KL over words ] of each sample (B,); P_I, P_R: softmax of the
    interactions as they are (truth, no gradient) and as they are predicted, both (B, T, V), over temperature."""
    pairs = words.unsqueeze(2) & frames.unsqueeze(1)

    def one_way(told: Tensor, true: Tensor, there: Tensor, rows: Tensor) -> Tensor:
        logs, target = (
            one.float().div(temperature).masked_fill(~there, LOWEST).log_softmax(dim=2) for one in (told, true.detach())
        )
        each = (target.exp() * (target - logs)).where(there, 0.0).sum(dim=2)
        return (each * rows).sum(dim=1) / rows.sum(dim=1).clamp_min(1)

    back = one_way(predicted.transpose(1, 2), truth.transpose(1, 2), pairs.transpose(1, 2), frames)
    return (one_way(predicted, truth, pairs, words) + back) / 2
