"""`asd-train embed`: sound files through an encoder into an .npz."""

from __future__ import annotations

import argparse
import sys
from typing import Any

EPILOG = """\
The checkpoint is recognised by its content: BEATs (.pt), EAT (fairseq .pt or the safetensors folder),
EfficientAT (.pt) or a folder that asd-train wrote. Files are resampled; of several channels the first counts.

pooling, of the tokens [time, frequency, dim] of each layer; several layers are joined:
  mean   over time and frequency -> dim
  cls    the class token (EAT) -> dim
  time   over time alone -> frequencies x dim (GenRep: 8 x 768)
  none   adds all tokens, key `tokens`, padded to the longest file, and their number in time, key `frames`
layers count from 1; 0 is what enters the first block, -1 the last.
A run of asd-train fit (RUN or RUN/system) embeds as it was trained to: leave these options out.

  asd-train embed BEATs_iter3_plus_AS2M.pt train/*.wav --layers 5 --pool time -o genrep.npz
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "embed",
        help="turn sound files into embeddings with a checkpoint",
        description="Write `file` and `embedding` of sound files (with --pool none: `tokens` too).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="file or folder of an encoder")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="sound file, or folder of sound files")
    parser.add_argument("--layers", default="last", help="all, last, or numbers like 4,8,12 (default: last)")
    parser.add_argument("--pool", default="mean", help="mean, cls, time, max, rdp8, rdp16gem3, none (default: mean)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.npz")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from asd_train.embed import embed_files

    count = embed_files(
        args.checkpoint,
        args.paths,
        args.output,
        layers=args.layers,
        how=args.pool,
        device=args.device,
    )
    print(f"{args.output}: {count} files", file=sys.stderr)
    return 0
