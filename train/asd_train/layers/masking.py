"""Inverse block masking (data2vec 2.0, EAT): what is kept lies in blocks, the rest is hidden."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_blocks(count: int, grid: tuple[int, int], *, hidden: float, adjust: float, block: int = 5) -> Tensor:
    """Places of the kept patches, [count, int(patches * (1 - hidden))], sorted; each row is drawn anew.

    About patches * (1 - hidden + adjust) / block^2 centres of block x block patches are drawn, blocks clamped at
    the border of `grid` (time, frequency); then patches are added or taken away at random until the number is
    right. Draws come from the CPU's generator.
    """
    times, frequencies = grid
    patches = times * frequencies
    kept = max(1, int(patches * (1 - hidden)))
    centres = torch.randint(patches, (count, max(1, int(patches * (1 - hidden + adjust) / block**2))))
    reach = torch.arange(block) - block // 2
    time = (centres.div(frequencies, rounding_mode="floor")[..., None] + reach).clamp(0, times - 1)
    frequency = (centres.remainder(frequencies)[..., None] + reach).clamp(0, frequencies - 1)
    inside = (time[..., :, None] * frequencies + frequency[..., None, :]).flatten(1)
    # Patches in blocks rank above all others, each group in random order.
    rank = torch.rand(count, patches)
    rank += torch.zeros(count, patches).scatter(1, inside, 1.0)
    return rank.topk(kept, dim=1).indices.sort(1).values
