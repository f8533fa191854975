"""Batches larger than memory for losses that compare all samples (Gao et al., Scaling Deep Contrastive Learning Batch Size, 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

P = TypeVar("P")
Embedded = Mapping[str, Tensor]


class GradientCache(Generic[P]):
    """Gradients of a loss over all pieces of a batch, with the memory of one piece.

    The pieces are embedded without a graph; the loss of all embeddings gives each its slope d loss / d embedding; every piece is
    embedded once more, with a graph, and its slopes are led back. By the chain rule these are the gradients of the whole batch, not an
    approximation, as long as a sample's embedding does not depend on the others (no batch norm). Dropout is drawn alike both times.
    """

    def __init__(
        self, pieces: list[P], embed: Callable[[P], Embedded], loss_of: Callable[[Embedded], dict[str, Tensor]]
    ) -> None:
        """embed: piece -> name -> (n, ...). loss_of: the same names, of all samples in order -> losses, of which `loss` is minimised. What is no
        floating point number (which recording a sample is of) is handed on without a slope."""
        self._random: list[_Random] = []
        found: list[Embedded] = []
        with torch.no_grad():
            for piece in pieces:
                self._random.append(_Random())
                found.append(embed(piece))
        with torch.enable_grad():
            joined = {name: torch.cat([one[name] for one in found]) for name in found[0]}
            leaves = {name: values.requires_grad_() for name, values in joined.items() if values.is_floating_point()}
            self.losses = loss_of(joined)
        names = list(leaves)
        slopes = torch.autograd.grad(self.losses["loss"], [leaves[name] for name in names])
        sizes = [len(one[names[0]]) for one in found]
        cut = {name: slope.split(sizes) for name, slope in zip(names, slopes, strict=True)}
        self._pieces = [(piece, {name: cut[name][number] for name in names}) for number, piece in enumerate(pieces)]

    def __iter__(self) -> Iterator[tuple[P, dict[str, Tensor]]]:
        """Each piece with its slopes, under the random state that it was embedded with: `surrogate(embed(piece), slopes)` is to be led back."""
        for (piece, slopes), random in zip(self._pieces, self._random, strict=True):
            with random.again():
                yield piece, slopes


def surrogate(embedded: Embedded, slopes: Embedded) -> Tensor:
    """A scalar whose gradient with respect to the embeddings is `slopes`."""
    return torch.stack([(embedded[name] * slopes[name]).sum() for name in slopes]).sum()


class _Random:
    """The state of torch's generators at one moment."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    @contextmanager
    def again(self) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.set_rng_state(self._cpu)
            if self._gpu is not None:
                torch.cuda.set_rng_state(self._gpu)
            yield
