"""`asd-train evaluate`: scores, figures and files as the challenge wants them."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asd_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asd_agent.types import Floats
    from asd_train.data import Clip, DataSource
    from asd_train.evaluate import Section
    from asd_train.metrics import Rules
    from asd_train.results import Remarks
    from asd_train.scoring import Scoring

    Evaluation = tuple[Path, list[Section], Rules, Remarks]  # the folder that it is written to first

EPILOG = """\
INPUT is one of
  RUN or RUN/system       what asd-train fit wrote; data and scoring are those of its configuration unless given
  FILE.npz                embeddings of asd-train embed or asd-agent embed
  CHECKPOINT              a public encoder, frozen (--layers, --pool)
  SYSTEM.yaml             one without embeddings: `autoencoder:` (the challenge's baseline, trained on the spot) or
                          `mechanism:` (the agent's mechanism analysis; for --replace of asd-train ensemble)

--scoring is a kind and its options; given several times, each writes to its own folder below OUT:
  cosine euclidean whitened                  nearest normal (what an agent runs); k=3
  two_bank,smote=0.2                         the smaller of source and target, target oversampled
  domain_z,metric=euclidean,memmixup=990     GenRep; transductive=true as published
  local_density kmeans,centres=16 selective_mahalanobis two_bank,scaled=true
  beam                                       a bank for each band (--pool time, rdp8, max); varmin=false
  any of them with supplemental=clean, weight.strength=0.1, weight.of=[energy], bank=target,...

OUT gets anomaly_score_*.csv and decision_result_*.csv (threshold: 90th percentile of a gamma distribution
over held-out normal scores), results.md, results.json, a picture a machine, and embeddings.npz to score again
without the encoder.

  asd-train evaluate runs/b_fbeats --data dcase2025t2 -o results/b_fbeats
  asd-train evaluate BEATs_iter3.pt --layers 5 --pool time --data dcase2025t2 \\
      --scoring domain_z,metric=euclidean,memmixup=990,transductive=true -o results/genrep
  asd-train evaluate results/genrep/embeddings.npz --data dcase2025t2 --scoring cosine --scoring whitened -o again
  asd-train evaluate runs/b_fbeats --snapshots -o results/curve     figures of every train.snapshots; curve.png
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="score test clips and compute the challenge's figures",
        description="Score the test clips of every machine against its normal clips, with the agent's own banks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="a run, an .npz, a checkpoint, or a YAML")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for scores and results")
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="FOLDER", action="append", help="recordings; repeatable")
    data.add_argument("--machine", metavar="NAME", action="append", default=[], help="only this one; repeatable")
    data.add_argument("--ground-truth", metavar="PATH", default="", help="of an evaluation set without labels")
    data.add_argument("--rules", choices=("auto", "2020", "2021", "2022"), default="auto",
                      help="year of the figures; 2022 holds until today (default: of the data's year)")  # fmt: skip
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--scoring", metavar="KIND[,KEY=VALUE...]", action="append", help="see below")
    scoring.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="rounds; 0 = no intervals (1000)")
    scoring.add_argument(
        "--snapshots", action="store_true", help="of a run: every snapshot, a folder each, and the curve over steps"
    )
    scoring.add_argument("--no-plots", action="store_true", help="no pictures")
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument("--array", metavar="NAME", action="append", default=[], help="of an .npz; several are joined")
    encoder.add_argument("--layers", default="last", help="of a checkpoint: all, last, or numbers like 4,8,12 (last)")
    encoder.add_argument(
        "--pool", default="mean", help="of a checkpoint: mean, cls, time, max, rdp8, rdp16gem3, ... (mean)"
    )
    encoder.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    encoder.add_argument("--batch-size", type=int, default=32, metavar="N", help="clips (32)")
    encoder.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from asd_train.results import summarise, write_scores, write_summary

    path, out = Path(args.input), Path(args.output)
    if args.snapshots:
        return _curve(path, out, args)
    if args.batch_size < 1 or args.workers < 0 or args.bootstrap < 0:
        raise UsageError("--batch-size must be at least 1, --workers and --bootstrap at least 0")
    for folder, sections, rules, remarks in _evaluations(path, out, args):
        try:
            write_scores(sections, folder)
            summary = summarise(sections, rules, args.bootstrap, remarks)
            write_summary(summary, folder)
            if not args.no_plots:
                _plot(sections, folder)
        except OSError as exc:
            raise UsageError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc
        print(f"{folder}\n\n{(folder / 'results.md').read_text()}")
    return 0


def _curve(path: Path, out: Path, args: argparse.Namespace) -> int:
    """Evaluates the snapshots of a run one by one; nothing is selected by what comes out."""
    from asd_train.curve import points_of, write_curve

    systems = points_of(path)
    for step, folder in systems.items():
        one = argparse.Namespace(**{**vars(args), "input": str(folder), "output": str(out / f"step-{step:08d}")})
        run(argparse.Namespace(**{**vars(one), "snapshots": False}))
    print(write_curve(out, list(systems)))
    return 0


def _evaluations(path: Path, out: Path, args: argparse.Namespace) -> Iterator[Evaluation]:
    """One of every scoring."""
    from asd_train.evaluate import evaluate, rules_of
    from asd_train.logmel import log_mel_of
    from asd_train.results import Remarks
    from asd_train.subject import Options, open_subject

    scorings = [_scoring(text) for text in args.scoring or ()]
    if path.suffix in (".yaml", ".yml"):
        yield _standalone(path, out, args)
        return
    options = Options(tuple(args.array), args.layers, args.pool, args.device, args.batch_size, args.workers)
    subject = open_subject(path, options)
    clips = _clips(args, subject.data)
    rules = rules_of(clips) if args.rules == "auto" else args.rules
    with _progress() as tell:
        vectors = subject.embed(clips, tell)
    if path.suffix != ".npz":
        _keep(clips, vectors, subject.blocks, out)
    for place, scoring in enumerate(scorings or [subject.scoring]):
        folder = out / args.scoring[place] if len(scorings) > 1 else out
        sections = evaluate(clips, vectors, scoring, log_mel_of, subject.blocks)
        yield folder, sections, rules, Remarks(scoring.transductive, subject.selected)


def _standalone(path: Path, out: Path, args: argparse.Namespace) -> Evaluation:
    """A configuration of a system without embeddings: `autoencoder:` or `mechanism:`."""
    from asd_agent.config.load import read
    from asd_train.autoencoder import Baseline, evaluate_autoencoder
    from asd_train.embed import pick_device
    from asd_train.evaluate import rules_of
    from asd_train.kinds import check_kind, command_of
    from asd_train.mechanism_scores import MechanismSystem, evaluate_mechanism
    from asd_train.results import Remarks

    if args.scoring:
        raise UsageError(f"{path}: --scoring is for embeddings, this system has its own score")
    keys = {line.split(":")[0] for line in _lines(path)}
    with _progress() as tell:
        if "autoencoder" in keys:
            baseline = read(path, Baseline)
            clips = _clips(args, baseline.data)
            sections = evaluate_autoencoder(clips, baseline.autoencoder, pick_device(args.device), tell)
        elif "mechanism" in keys:
            system = read(path, MechanismSystem)
            clips = _clips(args, system.data)
            sections = evaluate_mechanism(clips, system.mechanism, args.workers, tell, system.rms)
        else:
            if "asd-train fit" not in (command_of(path) or "asd-train fit"):
                check_kind(path, "evaluate")
            raise UsageError(f"{path}: train it first (asd-train fit {path} -o RUN), then evaluate RUN")
    return out, sections, rules_of(clips) if args.rules == "auto" else args.rules, Remarks()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read ({exc.strerror or exc})") from exc


def _clips(args: argparse.Namespace, own: Sequence[DataSource]) -> list[Clip]:
    """The clips of --data, or of the configuration's data, with the restrictions of the command line."""
    import msgspec

    from asd_train.data import DataSource, load_clips

    sources = [DataSource(path=folder) for folder in args.data] if args.data else list(own)
    if not sources:
        raise UsageError("no data: give the recordings with --data FOLDER")
    changes: dict[str, Any] = {"ground_truth": args.ground_truth} if args.ground_truth else {}
    clips = load_clips([msgspec.structs.replace(source, **changes) for source in sources])
    missing = sorted(set(args.machine) - {clip.machine for clip in clips})
    if missing:
        raise UsageError(f"no machine {missing[0]!r} in the data, only {', '.join(sorted({c.machine for c in clips}))}")
    return [clip for clip in clips if not args.machine or clip.machine in args.machine]


def _scoring(text: str) -> Scoring:
    """`two_bank,smote=0.2` -> Scoring; keys may be dotted, values are YAML. Raises UsageError."""
    import msgspec
    import yaml

    from asd_train.scoring import Scoring

    kind, *pairs = re.split(r",(?![^\[]*\])", text)  # a comma inside [...] belongs to a list
    values: dict[str, Any] = {"kind": kind}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        *parents, last = key.split(".")
        if not equals or not last:
            raise UsageError(f"--scoring {text}: {pair!r} is not of the form key=value")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = yaml.safe_load(value)
    try:
        return msgspec.convert(values, Scoring)
    except msgspec.ValidationError as exc:
        raise UsageError(f"--scoring {text}: {exc}") from exc


def _keep(clips: Sequence[Clip], vectors: Floats, blocks: Sequence[int], out: Path) -> None:
    import numpy as np

    from asd_agent.files import save_arrays

    out.mkdir(parents=True, exist_ok=True)
    files = np.array([clip.path for clip in clips])
    arrays = {"file": files, "embedding": vectors.astype(np.float32), "blocks": np.array(blocks, np.int64)}
    save_arrays(out / "embeddings.npz", arrays)


def _plot(sections: Sequence[Section], folder: Path) -> None:
    from asd_train.plot import available, plot_section
    from asd_train.results import threshold

    if not available():
        print('asd-train: no pictures without matplotlib: pip install "asd-agent[plot]"', file=sys.stderr)
        return
    for section in sections:
        if section.labelled:
            name = f"{section.year or ''} {section.name}".strip().replace(" ", "_")
            plot_section(section, threshold(section.held_out), folder / f"{name}.png")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; call it with (what, done, in all)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
