"""The training loop of one process: steps, schedule, averaged weights; it yields events and decides nothing else."""

import inspect
import math
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from useg.errors import TrainingError
from useg.segmentation.losses import supervise
from useg.segmentation.unet import UNet
from useg.train.batches import Batches, MicroBatch
from useg.train.plan import Plan
from useg.train.seeding import torch_seed

_INITIAL, _DROPOUT = 11, 12
_NORM_MOMENTUM = 0.1


def learning_rate(plan: Plan, step: int, *, cooldown_start: int, stop: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, constant, then down to 1 % along a cosine."""
    rate = plan.lr * min(1.0, (step + 1) / max(1, plan.warmup_steps))
    if step >= cooldown_start:
        done = (step - cooldown_start + 1) / max(1, stop - cooldown_start)
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return rate


class Trainer:
    """Network, optimiser and averaged weights of a plan.

    The result of a step depends on the plan, the step's number and the state before it alone. With
    several processes each takes every `world`-th micro-batch, and gradients and moments are averaged.

    Args:
        plan: the frozen plan. rank, world: this process among those that train together.
    """

    def __init__(self, plan: Plan, *, rank: int = 0, world: int = 1) -> None:
        torch.set_num_threads(plan.threads)
        self.plan, self.rank, self.world = plan, rank, world
        self.device = torch.device("cpu")
        if plan.device == "cuda":
            self.device = torch.device(f"cuda:{rank % torch.cuda.device_count()}")  # of this machine
        torch.manual_seed(torch_seed(plan.seed, _INITIAL))
        self._layout = torch.channels_last if plan.dims == 2 else torch.channels_last_3d
        network = UNet(**plan.network_arguments())
        self.network: UNet = network.to(device=self.device, memory_format=self._layout)  # type: ignore[call-overload]
        self.optimizer = _optimizer(plan, self.network)
        self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self._norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        for norm in self._norms:
            norm.momentum = 1.0  # so that the buffers hold the moments of the last micro-batch
        self.step = 0
        self.cooldown_start = plan.steps - plan.cooldown_steps
        self.stop = plan.steps

    @property
    def numbers(self) -> list[int]:
        """The micro-batches of a step that this process computes."""
        return list(range(self.rank, self.plan.count, self.world))

    def steps(self, batches: Batches) -> Generator[dict[str, Any], None, None]:
        """Train from where the state stands to `stop` (which may be lowered meanwhile); an event per step.

        Raises:
            TrainingError: the loss is NaN or infinite; the step is not applied.
        """
        go = self._agree(go=self.step < self.stop)  # first: it tells the others where the run ends
        with closing(batches.ahead(self.step, self.stop, self.numbers)) as prepared:
            try:
                while go:
                    ready = next(prepared)
                    started = time.perf_counter()
                    rate = learning_rate(self.plan, self.step, cooldown_start=self.cooldown_start, stop=self.stop)
                    loss = self.take_step(ready, rate)
                    self.step += 1
                    seconds = round(time.perf_counter() - started, 4)
                    yield {"event": "step", "step": self.step, "loss": loss, "lr": rate, "seconds": seconds}
                    go = self._agree(go=self.step < self.stop)
            except GeneratorExit:
                self._agree(go=False)
                raise

    def _agree(self, *, go: bool) -> bool:
        """The first process says whether to go on and where the run ends; the others follow."""
        if self.world == 1:
            return go
        word = torch.tensor([int(go), self.stop, self.cooldown_start], device=self.device)
        torch.distributed.broadcast(word, src=0)
        go_on, self.stop, self.cooldown_start = (int(v) for v in word.tolist())
        return bool(go_on)

    def share_state(self) -> None:
        """Bring all processes to the state of the first one."""
        if self.world == 1:
            return
        content: list[Any] = [(self.tensors(), self.state()) if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(content, src=0)
        if self.rank:
            tensors, state = content[0]
            self.restore(tensors, state)

    def take_step(self, ready: list[MicroBatch], rate: float) -> float:
        """One optimiser step over micro-batches; returns the mean loss of all of them."""
        self.network.train()
        before = [tuple(t.clone() for t in _moments(n)) for n in self._norms]
        moments = [(torch.zeros_like(mean), torch.zeros_like(var)) for mean, var in before]
        total = torch.zeros((), device=self.device)
        for number, batch in zip(self.numbers, ready, strict=True):
            torch.manual_seed(torch_seed(self.plan.seed, _DROPOUT, self.step, number))
            loss = self._loss(batch) / self.plan.count
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            for norm, (mean, var) in zip(self._norms, moments, strict=True):
                for kept, moment in zip((mean, var), _moments(norm), strict=True):
                    kept += moment / self.plan.count
        self._gather([total, *(t for pair in moments for t in pair)])
        loss_value = float(total)
        self._check(loss_value, "loss", before)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self._gather(gradients)
        norm_value = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm))
        self._check(norm_value, "gradient", before)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            for norm, old, new in zip(self._norms, before, moments, strict=True):
                for moment, start, end in zip(_moments(norm), old, new, strict=True):
                    moment.copy_(start.lerp(end, _NORM_MOMENTUM))
            # the step itself, without what torch does around it for its compiler
            inspect.unwrap(type(self.optimizer).step)(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self._average_weights()
        return loss_value

    def _check(self, value: float, what: str, before: list[tuple[Tensor, ...]]) -> None:
        """Refuse a step that would spoil the weights; the network stays as it was before it."""
        if math.isfinite(value):
            return
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for norm, old in zip(self._norms, before, strict=True):
                for moment, start in zip(_moments(norm), old, strict=True):
                    moment.copy_(start)
        raise TrainingError(
            f"the {what} became {value} at step {self.step + 1}. The last good checkpoint is kept. "
            "Try a lower rate (--set train.lr=0.0005), and look at the intensities in `useg inspect`"
        )

    def _loss(self, batch: MicroBatch) -> Tensor:
        image = torch.from_numpy(batch.image).to(self.device, memory_format=self._layout)
        amp = self.plan.dtype == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=amp):
            logits = self.network(image)
        distance = None if batch.distance is None else torch.from_numpy(batch.distance).to(self.device)
        return supervise(
            logits,
            torch.from_numpy(batch.targets).to(self.device),
            torch.from_numpy(batch.weights).to(self.device),
            softmax_channels=self.plan.softmax_channels,
            distance=distance,
            dice_share=self.plan.dice_share,
        )

    def _gather(self, tensors: list[Tensor]) -> None:
        """Sum over processes, in one message."""
        if self.world == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        torch.distributed.all_reduce(flat)
        at = 0
        for tensor in tensors:
            tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
            at += tensor.numel()

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        mine, theirs = [], []
        for name, tensor in self.network.state_dict().items():
            if tensor.dtype.is_floating_point:
                mine.append(self.average[name])
                theirs.append(tensor)
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def predictor(self) -> UNet:
        """A copy of the network with the averaged weights, folded, for prediction."""
        network = UNet(**self.plan.network_arguments())
        network.load_state_dict(self.average)
        return network.fold().to(device=self.device, memory_format=self._layout)  # type: ignore[call-overload, no-any-return]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as named tensors."""
        named = {f"network.{n}": t for n, t in self.network.state_dict().items()}
        named |= {f"average.{n}": t for n, t in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    named[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        return named

    def state(self) -> dict[str, Any]:
        """The rest of it, as plain values."""
        return {"step": self.step, "cooldown_start": self.cooldown_start, "stop": self.stop}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go back to a saved state; training goes on from there bit for bit."""
        self.network.load_state_dict(_below("network.", tensors))
        for name, tensor in _below("average.", tensors).items():
            self.average[name].copy_(tensor)
        slots: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, tensor in _below("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:  # the fused optimiser takes all of them as they lie in memory
                tensor = torch.empty_like(parameter.detach()).copy_(tensor)
            slots.setdefault(int(index), {})[key] = tensor
        saved = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": slots, "param_groups": saved["param_groups"]})
        self.step = state["step"]


def _moments(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a BatchNorm."""
    return norm.running_mean, norm.running_var  # type: ignore[return-value]


def _spare_the_compiler() -> None:
    """Keep torch from loading its compiler only to keep the optimiser out of it: a second and 2,800 modules in every
    process that trains. Where torch no longer does so, this does nothing."""
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and getattr(method, "__module__", "") == plain.__module__:
            plain.__dict__.setdefault("__dynamo_disable", plain)


def _optimizer(plan: Plan, network: nn.Module) -> torch.optim.Optimizer:
    _spare_the_compiler()
    if plan.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.99), fused=True)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def overfit_one_batch(plan: Plan, batches: Batches, *, steps: int = 20) -> tuple[float, float]:
    """Loss before and after training a throw-away network on one batch again and again.

    A network that cannot learn even that tells of labels or settings that make no sense.
    """
    trainer = Trainer(plan.model_copy(update={"warmup_steps": 3}))
    ready = [batches.micro_batch(0, 0)]
    single = trainer.plan.model_copy(update={"count": 1})
    trainer.plan = single
    losses = [trainer.take_step(ready, plan.lr) for _ in range(steps)]
    return losses[0], float(np.mean(losses[-3:]))
