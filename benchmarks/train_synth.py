"""Fine-tuning against the frozen encoder and the challenge's autoencoder, on the synthetic challenge.

    python benchmarks/train_synth.py --checkpoint ../shared/checkpoints/mn04_as_mAP_432.pt
        [-o benchmarks/results/train_synth.json] [--machines 14] [--steps 120] [--seeds 0,1]

One set of recordings: machines with attributes, two domains, supplemental clips. All embeddings are scored alike
(cosine 1-NN over the normals of both domains, which is what an agent runs), once of the last layer, which is what was
trained, and once of all layers joined; the official score is the harmonic mean of AUC source, AUC target and pAUC over
all machines, in percent. The settings of the fine-tuning were chosen on the machines of seed 0, the figures are of
others (--machines-seed).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import box
import msgspec
import numpy as np
import torch

from asd_train import config as cfg
from asd_train.autoencoder import Autoencoder, evaluate_autoencoder
from asd_train.data import Clip, DataSource, load_clips
from asd_train.embed_clips import embed_clips
from asd_train.evaluate import Section, evaluate
from asd_train.fit import fit
from asd_train.metrics import bootstrap, official_score, section_figures
from asd_train.model import load_system
from asd_train.scoring import Scoring
from asd_train.synth import Counts, draw_machines, write_challenge

COUNTS = Counts(source=60, target=6, test=40, supplemental=8)
CLIP_S = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a public encoder")
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--machines", type=int, default=14)
    parser.add_argument("--machines-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=30, help="of the autoencoder (default: 30)")
    parser.add_argument("--seeds", default="0,1", help="one fine-tuning each (default: 0,1)")
    parser.add_argument("--lr", type=float, default=1e-4)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "2025"
        write_challenge(data, draw_machines(args.machines, args.machines_seed, CLIP_S), COUNTS)
        clips = load_clips([DataSource(path=str(data))])
        for how in ("mse", "mahalanobis"):
            start = time.perf_counter()
            sections = evaluate_autoencoder(clips, Autoencoder(score=how, epochs=args.epochs), torch.device("cpu"))
            rows.append(row(f"autoencoder, {how}", sections, time.perf_counter() - start))
        frozen = system(args, data, None)
        rows += embedded("frozen encoder", frozen, Path(folder) / "frozen", clips)
        for seed in map(int, args.seeds.split(",")):
            tuned = system(args, data, seed)
            rows += embedded(f"fine-tuned, seed {seed}", tuned, Path(folder) / f"tuned{seed}", clips)
    result = {
        "machine": f"{box.cpu_model()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "encoder": Path(args.checkpoint).name,
        "machines": args.machines,
        "machines_seed": args.machines_seed,
        "clips_a_machine": dataclasses.asdict(COUNTS),
        "steps": args.steps,
        "lr": args.lr,
        "systems": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    return 0


def system(args: argparse.Namespace, data: Path, seed: int | None) -> cfg.System:
    """The encoder as it is (seed None), or fine-tuned by classification of machine, attributes and domain."""
    trained = seed is not None
    branch = cfg.EncoderBranch(checkpoint=args.checkpoint, tuning="full" if trained else "frozen")
    train = cfg.Train(
        steps=args.steps, batch_size=32, lr=args.lr, head_lr=10 * args.lr, precision="fp32",
        schedule=cfg.Schedule(kind="cosine", warmup=10), workers=0, seed=seed or 0, checkpoint_every=10**9,
    )  # fmt: skip
    return cfg.System(
        name="synth",
        data=[DataSource(path=str(data))],
        model=cfg.Model(branches=[branch]),
        clip_s=CLIP_S,
        objective=cfg.Classify(loss=cfg.ArcFace(margin=0.2), mixup=0.5) if trained else None,
        train=train if trained else None,
    )


def embedded(name: str, config: cfg.System, run: Path, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """A row of the last layer, and one of all layers."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        trained, card = load_system(fit(config, run))
    rows = []
    for output, words in ((cfg.Output(), "last layer"), (cfg.Output(layers="all"), "all layers")):
        trained.config = msgspec.structs.replace(trained.config, output=output)
        vectors = embed_clips(
            trained, clips, card.rate_hz, clip_s=card.clip_s, fill=card.fill, device=torch.device("cpu")
        )
        sections = evaluate(clips, vectors, Scoring(kind="cosine"))
        rows.append(row(f"{name}, {words}", sections, time.perf_counter() - start))
    return rows


def row(name: str, sections: Sequence[Section], seconds: float) -> dict[str, Any]:
    """The official score with its bootstrap interval over test clips, and the mean of each figure over machines."""
    scored = [section.scored() for section in sections]
    figures = [section_figures(one) for one in scored]
    low, high = bootstrap(scored, rounds=500)["all"]
    found: dict[str, Any] = {"system": name, "official_score": percent(official_score(figures))}
    found["interval_95"] = [percent(low), percent(high)]
    found |= {key: percent(np.mean([f[key] for f in figures])) for key in figures[0]}
    found["seconds"] = round(seconds, 1)
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def percent(share: float) -> float:
    return round(100 * float(share), 2)


if __name__ == "__main__":
    sys.exit(main())
