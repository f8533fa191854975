"""Where the weights of a run are: all of them in every process, or each process with its part of them (`train.shard`).

With `train.shard`, what learns is a copy of the objective of which torch's FSDP2 keeps a part of every tensor in every process: of weights, gradients
and the optimiser's averages alike. A block (an element of an nn.ModuleList) gathers its weights for as long as it computes, all else for as long as
the step does. The objective that everybody else knows (monitors, validation, whoever saves it) stays a plain module, an empty shell whose weights
are fetched for as long as somebody looks. Nobody else has to know of sharding, as long as blocks are called and not reached into.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from domains.errors import ConfigError
from recipes.objective import Batch, Contrast, Objective, Progress
from recipes.parts.distributed import rank, world_size


class Weights:
    """Every process holds all weights.

    objective: the one that the run was given. learner: the one that is trained, `objective` itself. wrapped: `learner` as Accelerate prepared it, to
    be called for losses; once `prepare` has been.
    """

    objective: Objective
    learner: Objective
    wrapped: Any

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = self.learner = objective.to(device)
        self.wrapped = self.learner

    def prepare(self, accelerator: Accelerator, optimiser: torch.optim.Optimizer) -> Any:
        """Make `wrapped` ready to learn; the optimiser as Accelerate prepared it."""
        self.wrapped, optimiser = accelerator.prepare(self.learner, optimiser, device_placement=[False, False])
        return optimiser

    @property
    def embed(self) -> Callable[[Batch], dict[str, Tensor]]:
        """A contrastive learner's `embed`, to be called from outside of its `forward`."""
        assert isinstance(self.learner, Contrast)
        return self.learner.embed

    def after_step(self, progress: Progress) -> None:
        """`Objective.after_step` of the learner."""
        self.learner.after_step(progress)

    @contextlib.contextmanager
    def whole(self, module: nn.Module, *, main_only: bool = False) -> Iterator[None]:
        """Within, `module`, a part of `objective`, has its present weights, on the main process at least. Every process must enter."""
        yield

    def settle(self) -> None:
        """Training is over: the main process' `objective` has its weights from now on. Every process must call it."""


class ShardedWeights(Weights):
    """Every process holds a part of each weight; `objective` is empty but within `whole`. Raises ConfigError where the weights cannot be parted."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        check_shardable(objective)
        self.objective = objective
        # A copy of everything but the weights, which are handed over: no process holds them twice.
        given = {id(one): nn.Parameter(one.detach(), one.requires_grad) for one in objective.parameters()}
        self.learner = self.wrapped = copy.deepcopy(objective, given)
        empty(objective)
        mesh = init_device_mesh(device.type, (world_size(),))
        for block in reversed(blocks_of(self.learner)):  # inner ones first
            fully_shard(block, mesh=mesh)  # each process keeps rows rank, of world_size equal parts
        fully_shard(self.learner, mesh=mesh)
        plain = dict(objective.named_parameters())
        for name, parameter in self.learner.named_parameters():
            vars(parameter).update(vars(plain[name]))  # `lr_scale`
        if isinstance(self.learner, Contrast):
            register_fsdp_forward_method(self.learner, "embed")
            self._embed = self.learner.embed
            del self.learner.embed  # within `forward` the weights are there already

    def prepare(self, accelerator: Accelerator, optimiser: torch.optim.Optimizer) -> Any:
        """See `Weights.prepare`. Gradients are averaged and parted in every pass, so that no process ever holds all of them."""
        # "Evaluation" keeps Accelerate from wrapping it in DDP; precision is set as ever.
        self.wrapped = accelerator.prepare_model(self.learner, device_placement=False, evaluation_mode=True)
        return accelerator.prepare_optimizer(optimiser, device_placement=False)

    @property
    def embed(self) -> Callable[[Batch], dict[str, Tensor]]:
        """See `Weights.embed`."""
        return self._embed

    def after_step(self, progress: Progress) -> None:
        """See `Weights.after_step`. Buffers, which every process holds whole, meet weights, of which it holds a part."""
        from torch.distributed.tensor.experimental import implicit_replication

        with implicit_replication():
            self.learner.after_step(progress)

    @contextlib.contextmanager
    def whole(self, module: nn.Module, *, main_only: bool = False) -> Iterator[None]:
        """See `Weights.whole`. Costs the memory of `module` for that long. Processes need not do the same within: it waits for nobody."""
        self._fill(module, main_only)
        try:
            yield
        finally:
            empty(module)

    def settle(self) -> None:
        """See `Weights.settle`."""
        self._fill(self.objective, main_only=True)

    @torch.no_grad()
    def _fill(self, module: nn.Module, main_only: bool) -> None:
        keep = rank() == 0 or not main_only
        names = {id(tensor): name for name, tensor in tensors_in(self.objective)}
        learned = dict(tensors_in(self.learner))
        for _, tensor in tensors_in(module):
            source = learned[names[id(tensor)]].detach()
            full = whole_tensor(source)
            if keep:
                tensor.data = source.clone() if full is source else full


def weights_of(objective: Objective, device: torch.device, *, shard: bool) -> Weights:
    """The weights of a run of this group of processes; a process that is alone holds all of them."""
    return ShardedWeights(objective, device) if shard and world_size() > 1 else Weights(objective, device)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Elements of the module lists that hold parameters, outer ones first."""
    lists = [inner for inner in module.modules() if isinstance(inner, nn.ModuleList)]
    return [block for each in lists for block in each if next(block.parameters(), None) is not None]


def check_shardable(objective: nn.Module) -> None:
    """Raises ConfigError for a weight that is a single number, or that two modules share."""
    seen: set[int] = set()
    for name, parameter in objective.named_parameters(remove_duplicate=False):
        if parameter.ndim == 0 or id(parameter) in seen:
            what = "is a single number" if parameter.ndim == 0 else "belongs to two modules"
            raise ConfigError(f"'train.shard' cannot part the weight {name}, which {what}", do="Leave train.shard out")
        seen.add(id(parameter))


def tensors_in(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]


@torch.no_grad()
def empty(module: nn.Module) -> None:
    """Forget the weights: each is a single NaN in the shape that it had, so that who looks all the same sees it at once."""
    for parameter in module.parameters():
        parameter.data = parameter.new_full((1,) * parameter.ndim, torch.nan).expand(parameter.shape)


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process holds a part; any other as it is. Every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The inverse: of a whole tensor this process' part, spread as `like` is; the tensor itself where `like` is whole."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None).clone()
