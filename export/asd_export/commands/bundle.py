"""`asd-export bundle`: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError

EPILOG = """\
CHECKPOINT is recognised by its content: BEATs (.pt), EAT (fairseq .pt or the safetensors folder), EfficientAT
(.pt), an encoder that asd-train wrote, or a trained system of asd-train (which has its own layers and pooling).

pooling, of the tokens [time, frequency, dim] of each layer; several layers are joined:
  mean   over time and frequency -> dim
  cls    the class token (EAT) -> dim, or those of all bands (bandsplit)
  time   over time alone -> frequencies x dim (GenRep: 8 x 768)
layers count from 1; 0 is what enters the first block, -1 the last.

The bundle is run by the agent's own encoder and compared with torch before it is written: over noise, a simulated
machine with faults, and your recordings with --sound. It fails when fp32 differs by more than 1e-4 or int8 has a
mean centred cosine below 0.98.

--bank MACHINE takes the bank along that asd-train evaluate scores this machine by: source and target clips apart, the
target oversampled, standard scores by domain, whatever the system's scoring says. The agent measures by it instead of
by its own calibration windows, which then only say how far its distances usually are. Precision: fp32.

  asd-export bundle BEATs_iter3_plus_AS2M.pt --window-s 10 -o bundles/beats
  asd-export bundle BEATs_iter3_plus_AS2M.pt --layers 5 --pool time --distance euclidean -o bundles/genrep
  asd-export bundle mn04_as_mAP_432.pt --layers 2,4,7,11,13,16 --labels -o bundles/mn04
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bundle",
        help="turn a checkpoint into a bundle",
        description="Write a bundle folder: ONNX with the front end inside, int8 variant, provenance, parity.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="file or folder of an encoder, or of a trained system")
    add("-o", "--output", required=True, metavar="DIR", help="the bundle folder to write")
    add("--layers", default="last", help="all, last, or numbers like 4,8,12 (default: last)")
    add("--pool", default="mean", help="mean, cls, time, max, rdp8, rdp16gem3, ... (default: mean)")
    add("--window-s", type=_window, metavar="S", help="seconds, or any (default: as trained, else 10)")
    add("--distance", choices=("whitened", "cosine", "euclidean", "beam"), help="default: whitened")
    add("--variants", default="fp32,int8", help="of fp32,int8 (default: both)")
    add("--labels", action="store_true", help="also the probabilities of human and animal sounds (EfficientAT)")
    add("--name", help="of the bundle (default: that of the checkpoint)")
    add("--licence", help="of the weights (default: as their authors published them)")
    add("--sound", nargs="+", default=[], metavar="PATH", help="recordings to compare torch and bundle on")
    add("--bank", metavar="MACHINE", help="of a trained system: its bank of this machine's training clips")
    add("--data", metavar="FOLDER", action="append", default=[], help="their recordings (default: the system's)")
    add("--replace", action="store_true", help="replace an existing bundle folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    variants = args.variants.split(",")
    if not variants or not {"fp32", "int8"}.issuperset(variants):
        raise UsageError(f"--variants {args.variants!r}: use fp32, int8 or fp32,int8")
    from asd_export.bundle import export_bundle
    from asd_export.subject import read_subject
    from asd_export.table import print_report

    subject = read_subject(
        args.checkpoint, layers=args.layers, pool=args.pool, distance=args.distance, labels=args.labels
    )
    bank = None
    if args.bank:
        from asd_export.machine_bank import machine_bank, packed

        bank, variants = packed(machine_bank(Path(args.checkpoint), args.bank, args.data), args.bank), ["fp32"]
    meta = export_bundle(
        subject,
        args.output,
        window_s=None if args.window_s == "any" else args.window_s,
        any_length=args.window_s == "any",
        variants=variants,
        name=args.name,
        licence=args.licence,
        sounds=args.sound,
        bank=bank,
        replace=args.replace,
    )
    print_report(args.output, meta.parity)
    return 0


def _window(text: str) -> float | str:
    if text == "any":
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of seconds up to 600 nor any")
    return seconds
