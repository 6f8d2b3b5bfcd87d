"""What a person sees of a run: a progress bar, `log.jsonl`, and TensorBoard if asked for."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from asd_agent.errors import AsdError

EVERY = 10  # steps between looks at the losses: each look waits for the GPU


class Reporter:
    """Collects losses on the device and writes their means over all processes every few steps.

    A resumed run first drops the lines of steps that it is going to do again.
    """

    def __init__(
        self, folder: Path, steps: int, done: int, clips: int, accelerator: Accelerator, tensorboard: bool = False
    ) -> None:
        self.steps, self.done, self.clips, self.accelerator = steps, done, clips, accelerator
        self.main = main = accelerator.is_main_process
        self._pending: list[tuple[int, dict[str, Tensor], float]] = []
        self._since, self._waited = time.perf_counter(), 0.0
        self._log: Any = None
        self._board: Any = None
        console = Console(stderr=True)
        self._lines = console if main and not console.is_terminal else None
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, disable=not (main and console.is_terminal),
        )  # fmt: skip
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            self._log = _log_from(folder / "log.jsonl", done)
            self._board = _tensorboard(folder) if tensorboard else None

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task("", total=self.steps, completed=self.done, note="")
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        for output in (self._log, self._board):
            if output is not None:
                output.close()

    def __call__(self, step: int, losses: dict[str, Tensor], lr: float) -> None:
        self._pending.append((step, losses, lr))
        if step % EVERY == 0 or step == self.steps:
            self.flush()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here is time that the device waits for the loader."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def flush(self) -> None:
        """Write what has gathered; on all processes at once. Raises AsdError when a loss is no number."""
        if not self._pending:
            return
        names = list(self._pending[0][1])
        table = torch.stack([torch.stack([losses[n].float() for n in names]) for _, losses, _ in self._pending])
        rows = self.accelerator.reduce(table, "mean").tolist()
        seconds = time.perf_counter() - self._since
        rate, wait = self.clips * len(rows) / seconds, self._waited / seconds
        for (step, _, lr), values in zip(self._pending, rows, strict=True):
            self._write(step, dict(zip(names, values, strict=True)), lr, rate, wait)
        self._pending.clear()
        self._since, self._waited = time.perf_counter(), 0.0

    def _write(self, step: int, losses: dict[str, float], lr: float, rate: float, wait: float) -> None:
        if not math.isfinite(losses["loss"]):
            raise AsdError(
                f"the loss is {losses['loss']} at step {step}: lower train.lr, or raise train.schedule.warmup"
            )
        if not self.main:
            return
        line = {
            "step": step,
            **losses,
            "lr": lr,
            "clips_per_s": round(rate, 2),
            "loader_wait": round(wait, 4),
        }
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        note = "  ".join(f"{name} {value:.4g}" for name, value in losses.items()) + f"  {rate:.1f} clips/s"
        self._bar.update(self._task, completed=step, note=note)
        if self._lines is not None and (step % max(1, self.steps // 20) == 0 or step == self.steps):
            self._lines.print(f"step {step}/{self.steps}  {note}", highlight=False, soft_wrap=True)
        if self._board is not None:
            for name, value in [*losses.items(), ("lr", lr), ("clips_per_s", rate)]:
                self._board.add_scalar(name, value, step)


def log_selection(folder: Path, steps: int, kept: int, score: float) -> None:
    """A choice by test labels, to log.jsonl and to the terminal."""
    line = {"step": steps, "selected_step": kept, "dev_score": score}
    path = folder / "log.jsonl"
    before = [row for row in path.read_text().splitlines() if "selected_step" not in row]
    path.write_text("\n".join([*before, json.dumps(line)]) + "\n")
    text = f"kept step {kept}: official score {100 * score:.2f} on labelled test clips, which have chosen it"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def reading() -> Callable[[int, int], None]:
    """A bar for decoding, called with (clips done, clips in all); gone when all are done."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("reading clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip

    def tell(done: int, total: int) -> None:
        if not bar.task_ids:
            bar.add_task("", total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done)
        if done == total:
            bar.stop()  # the training's bar comes next, and a terminal shows one at a time

    return tell


def _log_from(path: Path, done: int) -> Any:
    kept: list[str] = []
    if path.is_file():
        with contextlib.suppress(ValueError):  # the last line of a killed run may be cut
            kept.extend(line for line in path.read_text().splitlines() if json.loads(line)["step"] <= done)
    path.write_text("".join(line + "\n" for line in kept))
    return path.open("a")


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise AsdError("TensorBoard is not installed: pip install tensorboard, or leave --tensorboard away") from exc
    return SummaryWriter(str(folder / "tensorboard"))
