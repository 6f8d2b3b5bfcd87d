"""The training loop: the same for fine-tuning and for pre-training, on one CPU, one GPU or several.

What is learnt is the learner's business; here are batches, gradients, averaging, checkpoints and their order.
Everything that a step depends on is either in the checkpoint or follows from the step's number, so that a run
that was killed goes on with the losses it would have had.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from asd_agent.errors import AsdError, UsageError
from asd_train import state
from asd_train.config import Schedule, Train
from asd_train.layers import schedule
from asd_train.layers.ema import Ema
from asd_train.origin import Origin, difference
from asd_train.progress import Reporter


class Movable(Protocol):
    """A batch, as far as the loop cares."""

    def to(self, device: torch.device) -> Self: ...


B = TypeVar("B", bound=Movable)
Batches = Callable[[int, int, int], Iterator[B]]  # (batches done, rank, processes) -> endless batches


class Learner(nn.Module, Generic[B]):
    """A module whose forward turns a batch into named losses; "loss" is the one that is minimised."""

    def forward(self, batch: B) -> dict[str, Tensor]:
        raise NotImplementedError

    def pretrained(self) -> set[int]:
        """ids of the parameters that are not new and learn at `lr`; the others at `head_lr`."""
        return set()

    def clip_groups(self) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are clipped together: `clip_norm` holds for each group."""
        return [list(self.parameters())]

    def before_update(self, progress: float) -> None:
        """Gradients are complete; progress is the share of steps done. To freeze a part set them None."""

    def after_update(self, step: int) -> None:
        """Weights have changed for the step-th time (teachers follow here)."""


@dataclass(frozen=True)
class Job:
    """One run: what to train with, for how long, and where it is written."""

    folder: Path
    settings: Train
    steps: int
    origin: Origin
    tensorboard: bool = False


def train(
    learner: Learner[B],
    feed: Batches[B],
    job: Job,
    accelerator: Accelerator,
    snapshot: Callable[[int], None],
) -> None:
    """Run the job to its end, resuming where it stopped; `snapshot` is called after `settings.snapshots`.

    The learner carries the averaged weights afterwards when there is an average. Raises AsdError with advice
    when the loss is no number or memory runs out, KeyboardInterrupt after SIGINT or SIGTERM (all is saved).
    """
    settings, device = job.settings, accelerator.device
    torch.manual_seed(settings.seed + accelerator.process_index)
    learner.to(device).train()
    model = accelerator.prepare_model(learner)
    optimiser = build_optimiser(learner, settings)
    factor = build_schedule(settings.schedule, job.steps)
    ema = Ema(learner, settings.ema) if settings.ema is not None else None
    done = _resume(job, learner, optimiser, ema, accelerator.process_index)
    batches = feed(done * settings.accumulate, accelerator.process_index, accelerator.num_processes)
    clips = settings.batch_size * settings.accumulate * accelerator.num_processes

    with (
        Reporter(job.folder, job.steps, done, clips, accelerator, job.tensorboard) as report,
        _stop() as stop,
    ):
        for step in range(done + 1, job.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor(step - 1)
            with _memory_advice(settings):
                losses = _gradients(model, batches, settings, accelerator, report)
                learner.before_update((step - 1) / job.steps)
                if settings.clip_norm is not None:
                    norms = [accelerator.clip_grad_norm_(p, settings.clip_norm) for p in learner.clip_groups()]
                    losses["norm"] = torch.stack([norm.to(device) for norm in norms if norm is not None]).norm()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            learner.after_update(step)
            if ema is not None:
                ema.update(learner)
            report(step, losses, optimiser.param_groups[0]["lr"])
            if step % settings.checkpoint_every == 0 or step == job.steps or stop:
                report.flush()
                _save(job, step, learner, optimiser, ema, accelerator)
            if step in settings.snapshots:
                with ema.applied(learner) if ema is not None else contextlib.nullcontext():
                    snapshot(step)
            if stop:
                raise KeyboardInterrupt
    if ema is not None:
        ema.write(learner)


def _gradients(
    model: nn.Module, batches: Iterator[B], settings: Train, accelerator: Accelerator, report: Reporter
) -> dict[str, Tensor]:
    """Forward and backward of one step; mean losses over its batches, on the device."""
    total: dict[str, Tensor] = {}
    for number in range(settings.accumulate):
        with report.waiting():
            batch = next(batches)
        batch = batch.to(accelerator.device)
        last = number == settings.accumulate - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=in_bf16(settings, accelerator)):
                losses = model(batch)
            accelerator.backward(losses["loss"] / settings.accumulate)
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() / settings.accumulate
    return total


def in_bf16(settings: Train, accelerator: Accelerator) -> bool:
    """bfloat16 is for GPUs; CPUs mostly emulate it."""
    return settings.precision == "bf16" and accelerator.device.type != "cpu"


def build_optimiser(learner: Learner[Any], settings: Train) -> torch.optim.AdamW:
    """AdamW; no decay on biases, norms and other vectors. `peak` of a group is its highest learning rate."""
    pretrained = learner.pretrained()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            lr = settings.lr if id(parameter) in pretrained else settings.head_lr or settings.lr
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    if not groups:
        raise UsageError("nothing to train: every branch is frozen and the objective has no parameters")
    return torch.optim.AdamW(
        [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
        betas=settings.betas,
        fused=next(learner.parameters()).device.type == "cuda",
    )


def build_schedule(settings: Schedule, steps: int) -> Callable[[int], float]:
    """Updates done -> factor of the peak learning rate."""
    if settings.kind == "cosine":
        return schedule.warmup_cosine(steps, settings.warmup, settings.final)
    if settings.kind == "inverse_sqrt":
        return schedule.inverse_sqrt(settings.warmup)
    return schedule.constant(settings.warmup)


def make_accelerator() -> Accelerator:
    """Processes and devices as `accelerate launch` or torchrun set them up; alone without."""
    # A fine-tuned checkpoint's deeper layers or heads may take no part in a loss.
    return Accelerator(
        cpu=not torch.cuda.is_available(), kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )


def _resume(job: Job, learner: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema | None, rank: int) -> int:
    folder = state.newest(job.folder)
    if folder is None:
        return 0
    differs = difference(state.read_manifest(folder).origin, job.origin)
    if differs:
        raise UsageError(f"{folder}: cannot be resumed, {differs}; name another folder to start anew")
    return state.load(folder, rank, learner, optimiser, ema)


def _save(
    job: Job,
    step: int,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: Ema | None,
    accelerator: Accelerator,
) -> None:
    randoms = state.gather_random(accelerator)
    if accelerator.is_main_process:
        state.save(job.folder, step, job.origin, learner, optimiser, ema, randoms)
    accelerator.wait_for_everyone()


class _Flag:
    def __init__(self) -> None:
        self.up = False

    def __bool__(self) -> bool:
        return self.up


@contextlib.contextmanager
def _stop() -> Iterator[_Flag]:
    """SIGINT and SIGTERM wait for the end of the step; a second one does not."""
    flag = _Flag()

    def raise_flag(number: int, frame: Any) -> None:
        if flag.up:
            raise KeyboardInterrupt
        flag.up = True

    try:
        before = {number: signal.signal(number, raise_flag) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _memory_advice(settings: Train) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as exc:
        half = max(1, settings.batch_size // 2)
        raise AsdError(
            f"out of GPU memory at batch_size {settings.batch_size}: try --set train.batch_size={half} "
            f"--set train.accumulate={settings.accumulate * settings.batch_size // half}, "
            "tuning: lora, or a shorter clip_s"
        ) from exc
