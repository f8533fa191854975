"""How much arithmetic a step is, and how much of what the device can do that comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from recipes.objective import Batch, Objective

# Dense bf16 multiply-adds with fp32 sums, in 1e12 operations a second, from the makers' data sheets (without sparsity). The first name that
# occurs in the device's name counts.
BF16_PEAK = {
    "B200": 2250.0, "H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 312.0, "L40S": 362.0, "L40": 181.0, "L4": 121.0, "A40": 149.7,
    "A30": 165.0, "A10": 125.0, "RTX 6000 Ada": 364.0, "RTX A6000": 154.8, "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip
_ATEN = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *others: Any, **names: Any) -> int:
    count: int = flop_counter.sdpa_flop_count(query, key, value)
    return count


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **names: Any) -> int:
    return 2 * _attention(query, key, value)


# These are given shapes. torch does not count attention on CPUs, and counts what backward passes compute a second time; the convention of MFU
# (Chowdhery et al., PaLM, 2022) is that a backward pass is two forward passes.
_BACKWARD = (
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward,
    _ATEN._scaled_dot_product_flash_attention_backward,
    _ATEN._scaled_dot_product_efficient_attention_backward,
    _ATEN._scaled_dot_product_cudnn_attention_backward,
)
_CONVENTION = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    **dict.fromkeys(_BACKWARD, _attention_backward),
}


class Flops:
    """Counts the multiplications and additions of matrix products and attention within `with`: forward and backward, as they run.

    count: after the block. What activation checkpointing computes twice counts twice.
    """

    count: int = 0

    def __init__(self) -> None:
        self._mode = FlopCounterMode(display=False, custom_mapping=dict(_CONVENTION))

    def __enter__(self) -> Flops:
        self._mode.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._mode.__exit__(*raised)
        self.count = int(self._mode.get_total_flops())


def flops_of(run: Callable[[], object]) -> int:
    """Operations of one call."""
    with Flops() as flops:
        run()
    return flops.count


def peak(device: torch.device, bf16: bool) -> float | None:
    """What a device can do in bf16, operations a second; None for a CPU, for fp32, and for one that we have no figure of."""
    if device.type != "cuda" or not bf16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((value * 1e12 for part, value in BF16_PEAK.items() if part in name), None)


def flops_on_paper(objective: Objective, batch: Batch) -> int | None:
    """Operations of a forward and backward pass of `objective` over batches of the shapes of `batch`; nothing is computed and nothing changed.

    On torch's meta device, on a copy whose tensors have shapes and no values. None for an objective that decides by values.
    """
    memo: dict[int, Any] = {}
    for parameter in objective.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in objective.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    try:
        sketch = copy.deepcopy(objective, memo)
        clips = {name: clip.detach().to("meta") for name, clip in batch.clips.items()}
        targets = {name: values.detach().to("meta") for name, values in batch.targets.items()}
        texts = {name: words.to("meta") for name, words in batch.texts.items()}
        shapes = Batch(clips, batch.seeds, targets, batch.index, texts)
        with torch.random.fork_rng():
            return flops_of(lambda: sketch(shapes)["loss"].backward())
    except (RuntimeError, NotImplementedError, TypeError):
        return None
