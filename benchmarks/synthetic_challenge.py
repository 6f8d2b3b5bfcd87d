"""Does fine-tuning pay? Frozen encoder, fine-tuned encoder, the challenge's baselines and the mechanism analysis on the
synthetic challenge.

    python benchmarks/synthetic_challenge.py --checkpoint mn04_as_mAP_432.pt [--steps 300] [--machines 5]
    python benchmarks/synthetic_challenge.py --encoder beats --size base --steps 3000 --clips 990      (on a GPU)

Figures are the challenge's (harmonic means of AUC source, AUC target and pAUC), with 95 % intervals over test clips.
Everything runs through the commands that a user types; encoders see all machines at once, the rest one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from asd_train import cli

SCORINGS = ("cosine", "whitened", "two_bank,smote=0.2", "local_density")


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        work = Path(args.work or name)
        data = work / "data"
        if not data.exists():
            counts = ["--source", args.clips, "--test", args.test, "--supplemental", max(1, args.clips // 10)]
            _run("synth", data, "--machines", args.machines, "--seed", args.seed, "--seconds", args.seconds, *counts)
        rows = [
            *_standalone(work, data, "autoencoder, MSE", {"autoencoder": {"score": "mse", "epochs": args.epochs}}),
            *_standalone(
                work, data, "autoencoder, Mahalanobis", {"autoencoder": {"score": "mahalanobis", "epochs": args.epochs}}
            ),
            *_standalone(work, data, "mechanism analysis", {"mechanism": {}}),
            *_encoder(work, data, args, "frozen", None),
            *_encoder(work, data, args, "fine-tuned", args.steps),
        ]
    _write(rows, args)


def _encoder(work: Path, data: Path, args: argparse.Namespace, title: str, steps: int | None) -> list[dict[str, Any]]:
    """Rows of one encoder under every scoring; without steps nothing is trained."""
    start = {"checkpoint": args.checkpoint} if args.checkpoint else {"encoder": args.encoder, "size": args.size}
    config: dict[str, Any] = {
        "name": title,
        "data": [{"path": str(data)}],
        "clip_s": args.seconds,
        "model": {"branches": [{"kind": "encoder", **start, "tuning": "full" if steps else "frozen"}]},
    }
    if steps:
        config["objective"] = {"kind": "classify", "loss": {"kind": "arcface", "scale": 30, "margin": 0.3}}
        config["train"] = {
            "steps": steps,
            "batch_size": args.batch_size,
            "lr": args.lr,
            "schedule": {"kind": "cosine", "warmup": min(50, steps // 10)},
            "workers": args.workers,
            "precision": "bf16" if torch.cuda.is_available() else "fp32",
        }
    path = work / f"{title}.yaml"
    path.write_text(yaml.safe_dump(config))
    _run("fit", path, "-o", work / title)
    out = work / f"{title} results"
    scorings = [part for scoring in SCORINGS for part in ("--scoring", scoring)]
    _run("evaluate", work / title, "-o", out, "--no-plots", *scorings)
    return [_row(f"{title} encoder, {scoring}", out / scoring) for scoring in SCORINGS]


def _standalone(work: Path, data: Path, title: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    path = work / f"{title}.yaml"
    path.write_text(yaml.safe_dump({"name": title, "data": [{"path": str(data)}], **config}))
    _run("evaluate", path, "-o", work / title, "--no-plots")
    return [_row(title, work / title)]


def _run(*arguments: Any) -> None:
    start = time.perf_counter()
    if cli.main([str(a) for a in arguments]) != 0:
        raise SystemExit(f"asd-train {arguments[0]} failed")
    print(f"-- asd-train {arguments[0]}: {time.perf_counter() - start:.0f} s", flush=True)


def _row(title: str, folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "results.json").read_text())
    return {"system": title, "score": found["score"], "interval": found["interval"], **found["means"]}


def _write(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    machine = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    settings = {key: value for key, value in vars(args).items() if key not in ("output", "work", "workers")}
    settings["checkpoint"] = args.checkpoint and Path(args.checkpoint).name
    report = {"machine": machine, "settings": settings, "systems": rows}
    Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
    print("| system | AUC source | AUC target | pAUC | official | 95 % interval |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        figures = " | ".join(f"{100 * row[key]:.1f}" for key in ("auc_source", "auc_target", "pauc", "score"))
        print(f"| {row['system']} | {figures} | {100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--checkpoint", help="initial weights")
    start.add_argument("--encoder", help="random weights of beats, eat or efficientat")
    parser.add_argument("--size", default="base")
    parser.add_argument("--machines", type=int, default=5)
    parser.add_argument("--clips", type=int, default=200, help="source clips a machine")
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=100, help="of the autoencoder")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", help="folder to keep data and runs in")
    parser.add_argument("-o", "--output", default="benchmarks/results/synthetic_challenge.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
