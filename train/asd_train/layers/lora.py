"""LoRA through peft: adapters on named linear layers, merged into them for export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from asd_agent.errors import ConfigError


def adapt(model: nn.Module, *, targets: Sequence[str], rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Freeze the model, put W + (alpha / rank) B A on every linear layer whose name ends in one of `targets`.

    In place. Raises ConfigError when a target names no layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = []
    for target in targets:
        found = [name for name in linear if name == target or name.endswith("." + target)]
        if not found:
            raise ConfigError(f"lora.targets: no linear layer of {type(model).__name__} is called {target!r}")
        names += found
    model.requires_grad_(False)
    options: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    inject_adapter_in_model(LoraConfig(target_modules=names, **options), model)


def merge(model: nn.Module) -> None:
    """Fold every adapter into its layer, in place: the model has its plain layers and key names again."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.base_layer)
