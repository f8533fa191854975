"""How well two sequences go together in order: soft dynamic time warping, and the loss over whole procedures that is made of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import mean_of_counted
from recipes.parts.precision import as_they_are

NOWHERE = -1e30  # log weight of paths that do not exist; finite, so that it has a gradient (of 0)


def soft_dtw(costs: Tensor, gamma: float, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Soft minimum over all monotone alignments of the sum of their costs (Cuturi and Blondel, ICML 2017).

        D = - gamma log  sum over alignments A of exp(- sum over (i, j) in A of c_ij / gamma)

    An alignment goes from (0, 0) to (n - 1, m - 1) in steps (1, 0), (0, 1), (1, 1). costs (B, n, m) in fp32 or fp64, of which the first `rows` (B,)
    and `columns` (B,) of each sample count (int64, 1 or more; None: all). Returns (B,), below the cheapest alignment's cost and, as gamma tends to 0,
    equal to it. Differentiable; computed along antidiagonals, as logarithms.
    """
    samples, n, m = costs.shape
    rows = costs.new_full((samples,), n, dtype=torch.int64) if rows is None else rows
    columns = costs.new_full((samples,), m, dtype=torch.int64) if columns is None else columns
    costs = costs.masked_fill(~_inside(costs, rows, columns), 0.0)  # padding may hold anything
    # (B, n + m - 1, n): on diagonal k the cells (i, k - i), one for each row i.
    row = torch.arange(n, device=costs.device)
    column = torch.arange(n + m - 1, device=costs.device).unsqueeze(1) - row
    exists = (column >= 0) & (column < m)
    diagonals = -costs[:, row, column.clamp(0, m - 1)] / gamma
    nowhere = torch.full_like(diagonals[:, 0], NOWHERE)
    before, last = nowhere, torch.where(row == 0, diagonals[:, 0], NOWHERE)
    found = [last]
    for k in range(1, n + m - 1):
        from_above, from_corner = (F.pad(one, (1, -1), value=NOWHERE) for one in (last, before))
        reached = torch.stack([last, from_above, from_corner]).logsumexp(dim=0)
        before, last = last, torch.where(exists[k], diagonals[:, k] + reached, NOWHERE)
        found.append(last)
    ends = torch.stack(found, dim=1)[torch.arange(samples, device=costs.device), rows + columns - 2, rows - 1]
    return -gamma * ends


def procedure_loss(
    frames: Tensor,
    steps: Tensor,
    *,
    frame_count: Tensor | None = None,
    step_count: Tensor | None = None,
    gamma: float = 0.1,
    temperature: float = 0.1,
    scale: float = 0.01,
    ratio: float = 0.5,
    margin: float = 0.0,
) -> Tensor:
    """Steps of a procedure in their order fit its frames better than in the reverse (PeskaVLP, Yuan et al., NeurIPS 2024).

        loss = mean over samples of  s D(V, T) + ratio * max(s D(V, T) - s D(V, reversed T) + margin, 0)
            D = soft-DTW with gamma,   c_ij = - log softmax over frames i of (v_i . t_j / temperature)

    frames (B, n, D) in the order of time, steps (B, m, D) in the order of the procedure, of any length (brought to length one, in fp32); of each
    sample the first frame_count and step_count (B,) count (None: all). Samples that have none of one are left out; 0 where that is all of them.
    Averaged over ranks, the mean is that of all their samples.

    Convention of ours: D is the soft minimum of Cuturi and Blondel, where the official code takes a weighted mean of the three ways into each cell.
    """
    (samples, n), m = frames.shape[:2], steps.shape[1]
    frame_count = torch.full((samples,), n, device=frames.device) if frame_count is None else frame_count
    step_count = torch.full((samples,), m, device=frames.device) if step_count is None else step_count
    counted = (frame_count > 0) & (step_count > 0)
    rows, columns = frame_count.clamp_min(1), step_count.clamp_min(1)
    v, t = F.normalize(frames.float(), dim=-1), F.normalize(steps.float(), dim=-1)
    with as_they_are(v):
        scores = v @ t.transpose(1, 2) / temperature
    padding = torch.arange(n, device=v.device).view(1, n, 1) >= rows.view(-1, 1, 1)
    costs = -F.log_softmax(scores.masked_fill(padding, torch.finfo(scores.dtype).min), dim=1)
    place = torch.arange(m, device=v.device)
    backwards = (columns.unsqueeze(1) - 1 - place).clamp_min(0)  # each sample's own steps turned round, not its padding
    turned = costs.gather(2, backwards.unsqueeze(1).expand(-1, n, -1))
    forward, reverse = (scale * soft_dtw(one, gamma, rows, columns) for one in (costs, turned))
    return mean_of_counted(forward + ratio * (forward - reverse + margin).clamp_min(0), counted)


def _inside(costs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, n, m) bool: cells that are no padding."""
    n, m = costs.shape[1:]
    in_rows = torch.arange(n, device=costs.device) < rows.unsqueeze(1)
    in_columns = torch.arange(m, device=costs.device) < columns.unsqueeze(1)
    return in_rows.unsqueeze(2) & in_columns.unsqueeze(1)
