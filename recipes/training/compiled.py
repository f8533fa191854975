"""Transformer blocks through torch.compile."""

from __future__ import annotations

from torch import nn


def compile_blocks(objective: nn.Module, backend: str = "inductor") -> int:
    """Have every block of every encoder and decoder within `objective` compiled when it is called next; returns how many.

    Block by block, as all blocks of a stack are the same code: that compiles in seconds, and keeps hooks, checkpointing and the names of weights as
    they are. A stack is what a module has as `blocks`.
    """
    seen: dict[int, nn.Module] = {}
    for module in objective.modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.ModuleList):
            seen |= {id(block): block for block in blocks}
    for block in seen.values():
        block.compile(backend=backend)
    return len(seen)
