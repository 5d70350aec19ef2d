"""One process, or several that `accelerate launch` (or torchrun) starts: rows shared out, gradients and states joined.

    replicated   every process holds the model; gradients are summed once, after a batch's last backward pass
    sharded      weights, gradients and optimiser states are kept in parts, a layer's weights gathered while it runs:
                 ZeRO stage 3 (Rajbhandari et al. 2020, arXiv:1910.02054) by torch's fully_shard, for a launcher's fsdp
                 and zero3, without DeepSpeed's engine

Every process draws and encodes the same batch and learns from its share, so losses, the place in the data and the
checkpoints are those of one process; the first one writes. The launcher's environment says which of the two it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Item, micro_batches
from reason_engine.training.common.recipe import Supervised

I = TypeVar("I", bound=Item)  # noqa: E741
Loss = Callable[[Any], tuple[Any, Mapping[str, float]]]


def process_count() -> int:
    """Processes of this run."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_first() -> bool:
    """Whether this process writes files and reports progress."""
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """Whether weights are kept in parts."""
    return process_count() > 1 and (_flag("ACCELERATE_USE_FSDP") or _flag("ACCELERATE_USE_DEEPSPEED"))


class Distributed:
    """The processes of one run, seen from this one. Constructing it waits for all of them."""

    def __init__(self) -> None:
        self.size, self.rank = process_count(), int(os.environ.get("RANK") or 0)
        self.first, self.sharded = is_first(), is_sharded()
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        cpu = not torch.cuda.is_available() or _flag("ACCELERATE_USE_CPU")
        if not cpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0))
        if not dist.is_initialized():
            dist.init_process_group("gloo" if cpu else "nccl")

    def share(self, batch: Sequence[I], tokens: int) -> list[tuple[list[I], bool]]:
        """This process's groups of a batch, each with whether it counts: all processes run as many passes."""
        if self.size == 1:
            return [(group, True) for group in micro_batches(batch, tokens)]
        ranked = sorted(batch, key=lambda one: (-len(one.ids), one.ids))
        dealt = [micro_batches(ranked[rank :: self.size], tokens) for rank in range(self.size)]
        mine, passes = dealt[self.rank], max(map(len, dealt))
        return [(mine[min(turn, len(mine) - 1)], turn < len(mine)) for turn in range(passes)]

    def shard(self, objective: Any, body: Any) -> Loss:
        """The objective's loss of a group. Where weights are kept in parts, they are from here on."""
        if not self.sharded:
            return lambda group: objective.loss(group, body)
        import torch
        from torch import nn
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        class Root(nn.Module):
            """What torch gathers the weights for: those outside the layers while the whole loss is worked out."""

            def __init__(self) -> None:
                super().__init__()
                self.model = objective.model

            def forward(self, group: Any) -> Any:
                return objective.loss(group, body)

        kind = "cpu" if torch.distributed.get_backend() == "gloo" else "cuda"
        mesh = init_device_mesh(kind, (self.size,))
        reshard = _flag("FSDP_RESHARD_AFTER_FORWARD", "true")
        device = os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none")
        offload = kind == "cuda" and (_flag("FSDP_OFFLOAD_PARAMS") or device != "none")
        policy: Any = CPUOffloadPolicy() if offload else OffloadPolicy()
        root, names = Root(), set(objective.model._no_split_modules or ())
        for module in [one for one in root.modules() if type(one).__name__ in names]:
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard, offload_policy=policy)
        fully_shard(root, mesh=mesh, reshard_after_forward=False, offload_policy=policy)
        return root

    def backward(self, loss: Any, counts: bool) -> None:
        """Gradients of a share of the batch's loss."""
        # fully_shard averages over the processes, where a sum is wanted
        (loss * ((self.size if self.sharded else 1) if counts else 0.0)).backward()

    def join(self, weights: Sequence[Any], loss: float, sums: dict[str, float]) -> tuple[float, dict[str, float]]:
        """Sum gradients, losses and sums over the processes."""
        if self.size == 1:
            return loss, sums
        import torch
        import torch.distributed as dist

        if not self.sharded:
            grads = [weight.grad for weight in weights if weight.grad is not None]
            works: list[Any] = [dist.all_reduce(grad, async_op=True) for grad in grads]
            for work in works:
                work.wait()
        names = sorted(sums)
        totals = torch.tensor([loss, *(sums[name] for name in names)], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            totals = totals.cuda()
        dist.all_reduce(totals)
        values: list[float] = totals.tolist()
        return values[0], dict(zip(names, values[1:], strict=True))

    def whole(self, state: Any) -> Any:
        """A state with its tensors whole, on the CPU where they were in parts. All processes must call it."""
        if not self.sharded:
            return state
        from torch.distributed.tensor import DTensor
        from torch.utils._pytree import tree_map_only

        return tree_map_only(DTensor, lambda part: part.full_tensor().cpu(), state)

    def part(self, tensor: Any, like: Any) -> Any:
        """This process's part of a whole tensor, laid out as `like` is."""
        if not self.sharded:
            return tensor
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or tensor.shape != like.shape:
            return tensor
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


class Weights:
    """The trained weights by name as the state of a model: frozen ones need not be kept."""

    def __init__(self, trained: list[tuple[str, Any]], processes: Distributed) -> None:
        self._trained, self._processes = dict(trained), processes

    def state_dict(self) -> dict[str, Any]:
        return self._processes.whole({name: parameter.detach() for name, parameter in self._trained.items()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(self._processes.part(state[name], parameter))


class Gathered:
    """An optimiser whose state is kept whole, as one process would keep it."""

    def __init__(self, optimiser: Any, processes: Distributed) -> None:
        self._optimiser, self._processes = optimiser, processes

    def state_dict(self) -> Any:
        return self._processes.whole(self._optimiser.state_dict())

    def load_state_dict(self, state: Any) -> None:
        from torch import Tensor

        weights = [weight for group in self._optimiser.param_groups for weight in group["params"]]
        part = self._processes.part
        parted = {
            number: {key: part(one, weights[number]) if isinstance(one, Tensor) else one for key, one in kept.items()}
            for number, kept in state["state"].items()
        }
        self._optimiser.load_state_dict({**state, "state": parted})


def check_distributed(config: Supervised, copies: int, *, sampled: bool) -> None:
    """Raises SetupError that names what cannot run in several processes, and how it can. `copies`: frozen models beside
    the trained one; `sampled`: the method draws from the model."""
    if process_count() == 1:
        return
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    if _flag("ACCELERATE_USE_DEEPSPEED") and stage != "3":
        raise SetupError(f"deepspeed: ZeRO stage {stage} is not known here; stage 3 is (--launch zero3), as fsdp2")
    if config.batch < process_count():
        raise SetupError(f"batch: {config.batch} rows are too few for {process_count()} processes")
    if sampled:
        raise SetupError("answers that the student writes itself (on-policy) are drawn in one process only")
    if not is_sharded():
        return
    muon, adapter = config.optimiser == "muon", config.peft and config.peft.method in ("prompt", "adapter")
    refused = {
        "optimiser: muon works on whole matrices; in parts (fsdp2, zero3) set optimiser: adamw": muon,
        "compile: not with weights in parts (fsdp2, zero3); set compile: false": config.compile,
        "ewc: not with weights in parts (fsdp2, zero3); launch replicated": config.ewc > 0,
        "this method holds a second model, which is not kept in parts (fsdp2, zero3); launch replicated": copies > 0,
        "peft: prompt and adapter are not trained in parts (fsdp2, zero3); launch replicated": adapter,
    }
    if wrong := next((message for message, found in refused.items() if found), None):
        raise SetupError(wrong)


def _flag(name: str, default: str = "") -> bool:
    """A launcher's switch."""
    return os.environ.get(name, default).lower() in ("true", "1")
