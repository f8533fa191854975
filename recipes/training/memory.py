"""Memory of a step: the largest batch that fits (`--batch-size auto`), and what to do where one did not."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from domains.errors import TrainingError
from domains.machine import free_memory
from domains.store.actions import PLACES
from recipes.config import RunConfig
from recipes.objective import (
    ABOUT,
    CAMERA,
    EXO,
    FOREVER,
    LABEL,
    LEVEL,
    MOMENT,
    NOUNS,
    POSE,
    SPAN,
    TEAM,
    VERBS,
    Batch,
    Contrast,
    Objective,
    Progress,
    Words,
)
from recipes.parts.distributed import world_size
from recipes.training.measured import MISSING

MARGIN = 0.9  # of the memory that is free: fragments, and batches whose masks keep a little more
TEMPORARY = 1.5  # CPU: memory of a step, in what its forward pass keeps; the backward pass holds gradients of a block or two beside it
STATE = 12  # bytes of a trained fp32 parameter beside itself: its gradient and AdamW's two averages


def sizes(limit: int) -> list[int]:
    """Batch sizes that are tried, rising: 1, 2, 3, 4, 6, 8, 12, 16, 24, ... up to `limit`."""
    found = sorted({size for power in range(limit.bit_length()) for size in (1 << power, 3 << power)} | {1})
    return [size for size in found if size <= limit]


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest of `sizes(limit)` that fits, 0 for none; asks about few, and about none far above the answer."""
    candidates = sizes(limit)
    best, step = -1, 0
    while step < len(candidates) and fits(candidates[step]):  # every other one, twice as large each time
        best, step = step, step + 2
    between = best + 1  # of the last that fits and the first that does not
    if between < min(step, len(candidates)) and fits(candidates[between]):
        best = between
    return candidates[best] if best >= 0 else 0


def largest_batch(objective: Objective, config: RunConfig, device: torch.device, bf16: bool, limit: int) -> int:
    """Samples of one process that a forward and backward pass of `objective` has room for on `device`, at most `limit`.

    objective: one made for the trial; its buffers and gradients are spoiled. On a GPU by trying, with the optimiser's memory set aside; on a
    CPU, where trying too much ends the process, from what two small passes keep. With `train.shard` the optimiser's part of this process counts, and
    weights and gradients as if they were whole: rather a little less than fits. Raises TrainingError where not even one sample fits.
    """
    objective.to(device).train()
    objective.before_step(Progress(0, 1, 0.0))
    elsewhere = STATE * trained(objective) * (1 - 1 / world_size() if config.train.shard else 0)
    found = (
        largest(lambda size: fits_gpu(objective, size, device, bf16, elsewhere), limit)
        if device.type == "cuda"
        else largest(lambda size: needed(objective, bf16, size) - elsewhere < MARGIN * free_memory(), limit)
    )
    if not found:
        raise TrainingError("not even one sample fits into memory", do=advice(config, objective))
    return found


def fits_gpu(objective: Objective, size: int, device: torch.device, bf16: bool, elsewhere: float) -> bool:
    """Whether a step of `size` samples stays within the GPU's memory, by doing it. elsewhere: bytes of its state that other processes hold."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        aside = torch.empty(int(STATE * trained(objective) - elsewhere), dtype=torch.uint8, device=device)
        one_pass(objective, made_up(objective, size, device), bf16)
        del aside
    except torch.OutOfMemoryError:
        return False
    finally:
        objective.zero_grad()
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) <= MARGIN * (free + ours) <= total


def needed(objective: Objective, bf16: bool, size: int) -> float:
    """Bytes of a CPU step of `size` samples, from what passes of two and of four keep for their backward pass."""
    two, four = (kept(objective, made_up(objective, count, torch.device("cpu")), bf16) for count in (2, 4))
    each = (four - two) / 2
    return STATE * trained(objective) + TEMPORARY * (two - 2 * each + each * size)


def kept(objective: Objective, batch: Batch, bf16: bool) -> int:
    """Bytes of the clips and of all that a forward pass keeps for its backward pass, parameters apart."""
    storages = {clip.untyped_storage().data_ptr(): clip.untyped_storage().nbytes() for clip in batch.clips.values()}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*objective.parameters(), *objective.buffers())}
    alive: list[Tensor] = []  # or their memory, and with it their address, would be given away again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        one_pass(objective, batch, bf16, backward=False)
    return sum(storages.values())


def one_pass(objective: Objective, batch: Batch, bf16: bool, backward: bool = True) -> None:
    """Forward, and backward."""
    device = next(iter(batch.clips.values())).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = objective(batch)["loss"]
    if backward:
        loss.backward()


def made_up(objective: Objective, size: int, device: torch.device) -> Batch:
    """A batch of noise in the shapes of the objective's views."""
    geometry = objective.encoder.geometry
    clips = {
        name: torch.randn(
            size, max(1, round(geometry.frames * view.length)), 3, geometry.size, geometry.size, device=device
        )
        for name, view in (*objective.views.items(), *objective.labelled.items())
    }
    targets = {LABEL: torch.zeros(size, dtype=torch.int64, device=device)} if objective.labelled else {}
    texts = {name: longest_texts(objective, asked.count, size).to(device) for name, asked in objective.texts.items()}
    if texts:  # all of one level
        targets[LEVEL] = torch.zeros(size, dtype=torch.int64, device=device)
        targets[SPAN] = torch.tensor([0, FOREVER], device=device).expand(size, 2)
        targets[ABOUT] = torch.arange(size, device=device).unsqueeze(1)
    if objective.acts:
        same = torch.zeros(size, max(PLACES), dtype=torch.int64, device=device)
        targets |= {VERBS: same[:, : PLACES[0]], NOUNS: same[:, : PLACES[1]], EXO: same[:, 0] > 0}
    if objective.together:  # two recordings a moment, of one team
        numbers = torch.arange(size, device=device)
        targets |= {MOMENT: numbers // 2, TEAM: numbers // 2, CAMERA: numbers % 2, EXO: numbers < 0}
    targets |= {
        MISSING.format(name): torch.zeros(size, dtype=torch.bool, device=device)
        for name, view in objective.views.items()
        if view.across
    }
    for name in objective.signals:
        targets[name] = made_up_signal(name, objective, size, device)
    return Batch(clips, torch.arange(size), targets, torch.arange(size), texts)


def made_up_signal(name: str, objective: Objective, size: int, device: torch.device) -> Tensor:
    """Noise in the shape that the settings of the method name, a hundred times of it."""
    sizes = objective.settings.model_dump()
    shape = (sizes["joints"], 2) if name == POSE else (sizes["channels"],)
    return torch.rand(size, 100, *shape, device=device)


def longest_texts(objective: Objective, count: int, size: int) -> Words:
    """`count` texts for each of `size` samples, as long as the tower reads them."""
    assert objective.text is not None  # it asks for texts
    reading = objective.text.reading
    tokens = torch.ones(size, count, reading.sections, reading.length, dtype=torch.int64)
    return Words(tokens, torch.arange(size * count).view(size, count))


def trained(objective: Objective) -> int:
    """Parameters with gradients."""
    return sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory, on a GPU or on the machine."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "can't allocate memory" in str(error))
    )


def advice(config: RunConfig, objective: Objective) -> str:
    """What to change so that a run needs less memory, the same steps first."""
    train, ways = config.train, []
    if isinstance(objective, Contrast):
        size = max(1, (train.piece or train.batch_size) // 2)
        if size < (train.piece or train.batch_size):
            ways.append(f"train.piece={size} (the same gradients)")
    elif train.batch_size > 1:
        half = train.batch_size // 2
        ways.append(f"train.batch_size={half} train.accumulate={train.accumulate * 2} (steps of the same size)")
    if not objective.asks_encoder:
        return f"Try {', or '.join([*ways, objective.lighter])}"
    if not config.encoder.checkpointing:
        ways.append("encoder.checkpointing=true (a third more time)")
    if world_size() > 1 and not train.shard:
        ways.append("train.shard=true (weights and the optimiser's averages spread over the processes)")
    if train.precision == "fp32":
        ways.append("train.precision=bf16")
    ways.append(objective.lighter)
    return f"Try {', or '.join(ways)}"
