"""Training checkpoints: everything a run needs to go on as if it had never stopped. No pickle.

    run/checkpoints/step-00001000/
        model.safetensors        the learner: encoders, heads, decoders, teachers
        optimiser.safetensors    its tensors, "<parameter>.<name>"
        ema.safetensors          averaged weights, when there are any
        random-<rank>.safetensors  generators of each process
        checkpoint.json          step, optimiser settings, and what the run was: config, git revision, data

The position in the data is no state: it follows from the step.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.folders import PART, written_whole
from asd_train.layers.ema import Ema
from asd_train.origin import Origin

KEPT = 2


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int = 1
    step: int
    groups: list[dict[str, Any]]  # the optimiser's settings of each group of parameters
    origin: Origin


def claim(run: Path, origin: Origin, resume: bool, result: str) -> None:
    """Make the run's folder and note the configuration there.

    Raises UsageError when it holds a run (or its `result`) and going on was not asked for.
    """
    if not resume and (newest(run) or (run / result).exists()):
        raise UsageError(f"{run}: holds a run already; add --resume to go on with it, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(origin.config, sort_keys=False, allow_unicode=True)
    (run / "config.yaml").write_text(text, encoding="utf-8")


def newest(run: Path) -> Path | None:
    """The last complete checkpoint of a run; leftovers of an interrupted write are ignored."""
    found = sorted(p for p in (run / "checkpoints").glob("step-*") if p.suffix != PART)
    return found[-1] if found else None


def save(
    run: Path,
    step: int,
    origin: Origin,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: Ema | None,
    randoms: list[dict[str, Tensor]],
) -> Path:
    """Write the state after `step` updates and delete older ones but the last; `randoms` by rank."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    with written_whole(folder) as part:
        save_model(learner, str(part / "model.safetensors"))
        state = optimiser.state_dict()
        tensors = {f"{n}.{key}": _plain(value) for n, entry in state["state"].items() for key, value in entry.items()}
        save_file(tensors, part / "optimiser.safetensors")
        if ema is not None:
            save_file({name: _plain(value) for name, value in ema.average.items()}, part / "ema.safetensors")
        for rank, generators in enumerate(randoms):
            save_file(generators, part / f"random-{rank}.safetensors")
        groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
        manifest = Manifest(step=step, groups=groups, origin=origin)
        (part / "checkpoint.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    for old in sorted((run / "checkpoints").glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Raises UsageError when it is damaged."""
    try:
        return msgspec.json.decode((folder / "checkpoint.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as exc:
        raise UsageError(f"{folder}: not a training checkpoint ({exc}); delete it to use an older one") from exc


def load(folder: Path, rank: int, learner: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema | None) -> int:
    """Restore everything in place; returns the steps done. Raises UsageError when it does not fit."""
    manifest = read_manifest(folder)
    try:
        load_model(learner, folder / "model.safetensors")
        _load_optimiser(folder, manifest, optimiser)
        if ema is not None:
            ema.load(load_file(folder / "ema.safetensors"))
        restore_random(load_file(folder / f"random-{rank}.safetensors"))
    except (OSError, RuntimeError, KeyError, ValueError) as exc:
        raise UsageError(f"{folder}: does not fit this run ({' '.join(str(exc).split())[:300]})") from exc
    return manifest.step


def _load_optimiser(folder: Path, manifest: Manifest, optimiser: torch.optim.Optimizer) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimiser.safetensors").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    own = optimiser.state_dict()["param_groups"]
    groups = [{**saved, "params": now["params"]} for saved, now in zip(manifest.groups, own, strict=True)]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def gather_random(accelerator: Accelerator) -> list[dict[str, Tensor]]:
    """The states of the random generators of all processes, by rank."""
    own = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return list(gather_object([own]))


def restore_random(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()
