"""Throughput of fine-tuning on one GPU: BEATs-base, LoRA and all weights, batch 32 of 10 s clips, bfloat16.

    python benchmarks/train_gpu.py [-o benchmarks/results/train_gpu.json] [--steps 120] [--workers 8]
    python benchmarks/train_gpu.py --smoke        that it runs: tiny encoders on the CPU; measures nothing

Clips are WAV files that the real loader decodes into its cache, and the loop is that of `asd-train fit`; the first
third of the steps is warm-up. The arithmetic of a step is counted by torch (matrix products and convolutions of forward
and backward); its share is of the card's bfloat16 rate, measured here with a product of 8192 x 8192 matrices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode

from asd_train import config as cfg
from asd_train.data import DataSource
from asd_train.data.dataset import Batch, collate
from asd_train.feed import feed_of
from asd_train.fit import audio_of, batches_of, gather, learner_of
from asd_train.loop import Job, make_accelerator, train
from asd_train.model import build_system
from asd_train.origin import origin_of

RATE_HZ = 16_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--clips", type=int, default=1024, help="files to write and read (default: 1024, 330 MB)")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--smoke", action="store_true", help="tiny encoders on the CPU, no figures")
    args = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        print("no GPU here, so there is nothing to measure; --smoke shows that the script runs", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_clips(data, 40 if args.smoke else args.clips, 2 if args.smoke else 10)
        if args.smoke:
            for tuning in ("lora", "full"):
                measure(tuning, data, Path(folder) / tuning, "tiny", 2.0, 6, 0)
            print("runs; no figures on a CPU")
            return 0
        rate = matmul_rate()
        rows = [
            measure(tuning, data, Path(folder) / tuning, "base", 10.0, args.steps, args.workers)
            for tuning in ("lora", "full")
        ]
    for row in rows:
        row["share_of_matmul_rate"] = row["flop_per_clip"] * row["clips_per_s"] / rate
    properties = torch.cuda.get_device_properties(0)
    result = {
        "machine": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "torch": torch.__version__,
        "bf16_matmul_tflop_per_s": rate / 1e12,
        "systems": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")
    return 0


def write_clips(folder: Path, count: int, seconds: int) -> None:
    """Two machines' noise in the challenge's names; the content does not matter for the speed."""
    rng = np.random.default_rng(0)
    for number in range(count):
        train_folder = folder / ("fan", "pump")[number % 2] / "train"
        train_folder.mkdir(parents=True, exist_ok=True)
        name = f"section_00_source_train_normal_{number:04d}_spd_{number % 6}.wav"
        soundfile.write(train_folder / name, rng.normal(0, 0.1, seconds * RATE_HZ), RATE_HZ, subtype="PCM_16")


def measure(tuning: Any, data: Path, run: Path, size: str, clip_s: float, steps: int, workers: int) -> dict[str, Any]:
    """One system through the training loop -> its figures."""
    smoke = size == "tiny"
    branch = cfg.EncoderBranch(encoder="beats", size=size, tuning=tuning, lora=cfg.Lora(rank=4 if smoke else 64))
    settings = cfg.Train(
        steps=steps, batch_size=8 if smoke else 32, workers=workers, checkpoint_every=10**9, cache_gb=4
    )
    config = cfg.System(
        name="speed",
        data=[DataSource(path=str(data))],
        model=cfg.Model(branches=[branch]),
        clip_s=clip_s,
        objective=cfg.Classify(loss=cfg.ArcFace()),
        train=settings,
    )
    accelerator = make_accelerator()
    material = gather(config)
    system = build_system(config)
    dataset, batches = batches_of(material, audio_of(material, system.rate_hz, settings.cache_gb))
    learner = learner_of(material, system)
    flop = flop_of(learner, collate([dataset[0], dataset[1]]), accelerator.device) / 2
    job = Job(run, settings, steps, origin_of(config, material.used, 1))
    start = time.perf_counter()
    train(learner, feed_of(dataset, batches, material.places, workers), job, accelerator, lambda step: None)
    if smoke:
        return {}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][steps // 3 :]
    return {
        "system": f"BEATs-base, {'LoRA rank 64' if tuning == 'lora' else 'all weights'}",
        "batch": settings.batch_size,
        "clip_s": clip_s,
        "clips_per_s": float(np.median([line["clips_per_s"] for line in lines])),
        "loader_wait_share": float(np.mean([line["loader_wait"] for line in lines])),
        "flop_per_clip": flop,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        "seconds_in_all": round(time.perf_counter() - start, 1),
        "workers": workers,
    }


def flop_of(learner: torch.nn.Module, batch: Batch, device: torch.device) -> float:
    """Of forward and backward of one batch, as torch counts them."""
    learner.to(device).train()
    batch = Batch(*(x.to(device) for x in batch))
    with FlopCounterMode(display=False) as counter:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = learner(batch)["loss"]
        loss.backward()
    learner.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def matmul_rate(size: int = 8192, rounds: int = 30) -> float:
    """bfloat16 operations per second of a large product on this card."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * rounds / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
