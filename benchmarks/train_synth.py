"""Fine-tuning against the frozen encoder and the challenge's autoencoder, on the synthetic challenge.

    python benchmarks/train_synth.py --checkpoint ../shared/checkpoints/mn04_as_mAP_432.pt
        [-o benchmarks/results/train_synth.json] [--machines 14] [--steps 250] [--seeds 0,1] [--threads 1]

One set of recordings: machines with attributes, two domains, supplemental clips. All embeddings are scored alike
(cosine 1-NN over the normals of both domains, which is what an agent runs) by each of three readouts: the last layer,
all layers joined, and all layers joined with their frequencies kept apart. The official score is the harmonic mean of
AUC source, AUC target and pAUC over all machines, in percent; `over_frozen` is its difference to the same readout of
the frozen encoder, `over_best_frozen` to that one which does best on these very clips, with an interval over test clips
drawn for both alike.

Back-ends without training score the frozen encoder's layers with their frequencies kept apart: poolings that weigh what
is rare (rdp8, rdp16gem3) or take the largest value (max), a bank for each band (beam) with and without VarMin, banks
scaled by their spacing, local density, parallel banks of mean and maximum. --backends alone does nothing else, in 15
minutes.

What is judged is source separation (configs/train/own_mn04.yaml) read out with frequencies kept apart; both were chosen
on the machines of seed 0, the figures are of others (--machines-seed). --classify adds classification of machine,
attributes and domain. About 30 minutes on one core.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import host
import msgspec
import numpy as np
import numpy.typing as npt
import torch

from asd_agent.types import Floats
from asd_train import config as cfg
from asd_train.autoencoder import Autoencoder, evaluate_autoencoder
from asd_train.backbones import Backbone, load_backbone
from asd_train.data import Clip, DataSource, load_clips
from asd_train.embed import PooledEncoder
from asd_train.embed_clips import embed_clips
from asd_train.evaluate import Section, evaluate
from asd_train.fit import fit
from asd_train.metrics import Scored, bootstrap, official_score, resample, section_figures
from asd_train.model import load_system
from asd_train.scoring import Scoring
from asd_train.synth import Counts, draw_machines, write_challenge

COUNTS = Counts(source=120, target=10, test=320, supplemental=30)
CLIP_S = 4.0
ROUNDS = 500  # of a bootstrap
BANDS = {
    "cosine": Scoring(kind="cosine"),
    "beam": Scoring(kind="beam", varmin=False),
    "beam, VarMin": Scoring(kind="beam"),
}
OTHERS = {
    "two banks": Scoring(kind="two_bank"),
    "two banks, scaled": Scoring(kind="two_bank", scaled=True),
    "local density": Scoring(kind="local_density"),
}
POOLINGS = {"time": BANDS | OTHERS, "rdp8": BANDS, "rdp16gem3": BANDS, "max": BANDS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a public encoder")
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--machines", type=int, default=14)
    parser.add_argument("--machines-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--layer", type=int, default=12, help="whose tokens are separated (default: 12)")
    parser.add_argument("--epochs", type=int, default=30, help="of the autoencoder; 0 = without it (default: 30)")
    parser.add_argument("--seeds", default="0,1", help="one fine-tuning by separation each (default: 0,1)")
    parser.add_argument("--classify", default="", help="seeds of fine-tunings by classification (default: none)")
    parser.add_argument("--backends", action="store_true", help="only the frozen encoder and its back-ends")
    parser.add_argument("--data", type=Path, help="recordings of an earlier run; made when the folder is empty")
    parser.add_argument("--threads", type=int, help="default: one a core")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data, runs = args.data or Path(folder) / "2025", Path(folder) / "runs"
        if not data.is_dir() or not any(data.iterdir()):
            machines = draw_machines(args.machines, args.machines_seed, CLIP_S)
            write_challenge(data, machines, COUNTS, workers=args.threads or 0)
        clips = load_clips([DataSource(path=str(data))])
        for how in ("mse", "mahalanobis") if args.epochs and not args.backends else ():
            start = time.perf_counter()
            sections = evaluate_autoencoder(clips, Autoencoder(score=how, epochs=args.epochs), torch.device("cpu"))
            rows.append(row(f"autoencoder, {how}", sections, time.perf_counter() - start))
        frozen = embedded("frozen", system(args, data), runs, clips)
        found = [row(name, sections, seconds) for name, sections, seconds in frozen]
        rows += found
        best = int(np.argmax([one["official_score"] for one in found]))
        reference = {"over_best_frozen": frozen[best][1]}
        backends = list(without_training(args.checkpoint, clips))
        rows += [row(name, sections, seconds, reference) for name, sections, seconds in backends]
        tried = [("separate", seed) for seed in numbers(args.seeds)]
        tried += [("classify", seed) for seed in numbers(args.classify)]
        if args.backends:
            tried = []
        for objective, seed in tried:
            name = f"fine-tuned, {objective}, seed {seed}"
            tuned = embedded(name, system(args, data, objective, seed), runs, clips)
            for (words, sections, seconds), (_, same, _) in zip(tuned, frozen, strict=True):
                others = {"over_frozen": same, "over_best_frozen": frozen[best][1]}
                rows.append(row(words, sections, seconds, others))
    result = {
        "machine": f"{host.cpu_model()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "encoder": Path(args.checkpoint).name,
        "machines": args.machines,
        "machines_seed": args.machines_seed,
        "clips_a_machine": dataclasses.asdict(COUNTS),
        "steps": args.steps,
        "lr": args.lr,
        "layer": args.layer,
        "best_frozen": found[best]["system"],
        "systems": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    return 0


def system(args: argparse.Namespace, data: Path, objective: str = "", seed: int = 0) -> cfg.System:
    """The encoder as it is (no objective), or what fine-tunes it."""
    by_name: dict[str, cfg.Objective] = {
        "separate": cfg.Separate(decoder_blocks=1, variants=1, decoder_share=1.0),
        "classify": cfg.Classify(loss=cfg.ArcFace(margin=0.2), mixup=0.5),
    }
    branch = cfg.EncoderBranch(
        checkpoint=args.checkpoint,
        tuning="full" if objective else "frozen",
        batch_norm="frozen",
        layers=[args.layer] if objective == "separate" else "last",
    )
    train = cfg.Train(
        steps=args.steps, batch_size=32, lr=args.lr, head_lr=3e-3, precision="fp32", seed=seed,
        schedule=cfg.Schedule(kind="cosine", warmup=10), clip_norm=1.0, workers=0, checkpoint_every=10**9,
    )  # fmt: skip
    return cfg.System(
        name="synth",
        data=[DataSource(path=str(data))],
        model=cfg.Model(branches=[branch]),
        clip_s=CLIP_S,
        objective=by_name.get(objective),
        train=train if objective else None,
    )


def embedded(
    name: str, config: cfg.System, runs: Path, clips: Sequence[Clip]
) -> list[tuple[str, list[Section], float]]:
    """(name, scores, seconds of training and embedding) of each readout."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        trained, card = load_system(fit(config, runs / name))
    trained.config = msgspec.structs.replace(trained.config, output=cfg.Output(layers="all", pool="time"))
    whole = embed_clips(trained, clips, card.rate_hz, clip_s=card.clip_s, fill=card.fill, device=torch.device("cpu"))
    seconds = time.perf_counter() - start
    return [
        (f"{name}, {words}", evaluate(clips, vectors, Scoring(kind="cosine")), seconds)
        for words, vectors in readouts(whole, trained.encoders[0].backbone).items()
    ]


def without_training(checkpoint: str, clips: Sequence[Clip]) -> Iterator[tuple[str, list[Section], float]]:
    """(name, scores, seconds) of each back-end that needs no training, all layers with their frequencies kept apart."""
    backbone = load_backbone(checkpoint)
    encoder = PooledEncoder(backbone, range(1, backbone.layers + 1), "+".join(POOLINGS))
    start = time.perf_counter()
    whole = embed_clips(encoder, clips, backbone.rate_hz, clip_s=CLIP_S, device=torch.device("cpu"))
    seconds = time.perf_counter() - start
    # Layer by layer one pooling follows the other, so each band's pooling repeats with the layers.
    of_band = np.concatenate([
        np.repeat(np.arange(len(POOLINGS)), backbone.frequencies(layer)) for layer in encoder.layers
    ])  # fmt: skip
    sizes = np.array(encoder.blocks)
    for how, backends in (POOLINGS | {"time+max": {"beam, VarMin": BANDS["beam, VarMin"]}}).items():
        chosen = np.isin(of_band, [list(POOLINGS).index(part) for part in how.split("+")])
        vectors, blocks = whole[:, np.repeat(chosen, sizes)], sizes[chosen].tolist()
        for words, scoring in backends.items():
            yield f"{how}, {words}", evaluate(clips, vectors, scoring, blocks=blocks), seconds


def readouts(whole: Floats, backbone: Backbone) -> dict[str, Floats]:
    """From all layers, means over time alone [clips, layer by layer frequencies * dim], what can be scored."""
    layers = range(1, backbone.layers + 1)
    shapes = [(backbone.frequencies(layer), backbone.dims[layer]) for layer in layers]
    ends = np.cumsum([frequencies * dim for frequencies, dim in shapes])
    parts = np.split(whole, ends[:-1], axis=1)
    means = [part.reshape(-1, *shape).mean(axis=1) for part, shape in zip(parts, shapes, strict=True)]
    joined = np.concatenate(means, axis=1)
    return {"last layer": means[-1], "all layers": joined, "all layers, by frequency": whole}


def row(
    name: str, sections: Sequence[Section], seconds: float, others: Mapping[str, Sequence[Section]] | None = None
) -> dict[str, Any]:
    """The official score with its bootstrap interval over test clips, its difference to `others`, and the mean of each
    figure over machines."""
    scored = [section.scored() for section in sections]
    figures = [section_figures(one) for one in scored]
    low, high = bootstrap(scored, rounds=ROUNDS)["all"]
    found: dict[str, Any] = {"system": name, "official_score": percent(official_score(figures))}
    found["interval_95"] = [percent(low), percent(high)]
    for words, theirs in (others or {}).items():
        found[words], found[f"{words}_95"] = difference(scored, [section.scored() for section in theirs])
    found |= {key: percent(np.mean([f[key] for f in figures])) for key in figures[0]}
    found["seconds"] = round(seconds, 1)
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def difference(ours: Sequence[Scored], theirs: Sequence[Scored]) -> tuple[float, list[float]]:
    """Official score of ours less that of theirs, and its interval over test clips drawn for both alike."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(ROUNDS):
        rows = [resample(one, rng) for one in ours]
        drawn.append(score_of(ours, rows) - score_of(theirs, rows))
    whole = [np.arange(len(one.scores)) for one in ours]
    edges = np.percentile(drawn, [2.5, 97.5])
    return percent(score_of(ours, whole) - score_of(theirs, whole)), [percent(edge) for edge in edges]


def score_of(scored: Sequence[Scored], rows: Sequence[npt.NDArray[np.int64]]) -> float:
    return official_score(section_figures(one.pick(picked)) for one, picked in zip(scored, rows, strict=True))


def numbers(text: str) -> list[int]:
    """ "0,1" -> [0, 1]"""
    return [int(part) for part in text.split(",") if part]


def percent(share: float) -> float:
    return round(100 * float(share), 2)


if __name__ == "__main__":
    sys.exit(main())
