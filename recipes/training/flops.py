"""How much arithmetic a step is, and how much of what the device can do that comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

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
