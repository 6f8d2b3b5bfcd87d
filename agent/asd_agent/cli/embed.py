"""asd-agent embed: the embeddings of recordings, whole file by whole file, as an NPZ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from asd_agent.capture import recordings
from asd_agent.cli.options import add_json
from asd_agent.cli.words import print_json, track
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.errors import AsdError
from asd_agent.files import save_arrays
from asd_agent.windowing.recordings import whole_recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, metavar="DIR", help="a bundle's folder, or a shipped name")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders")
    add_json(parser, "print what was embedded as JSON")
    parser.add_argument(
        "-o", "--output", required=True, metavar="out.npz", help="NPZ with `file` and one array per embedding"
    )


def run(args: argparse.Namespace) -> int:
    bundle = Bundle.load(args.bundle)
    encoder = Encoder(bundle)
    rows: dict[str, list[np.ndarray]] = {output.name: [] for output in bundle.meta.outputs}
    files = recordings(args.paths)
    done = []
    for path in track(files, "embedding"):
        try:
            embeddings = encoder.embed(whole_recording(path, bundle.meta.rate_hz, bundle.meta.lowest_rate_hz))
        except AsdError as exc:
            print(f"asd-agent: {exc}", file=sys.stderr)
            continue
        done.append(str(path))
        for name, value in embeddings.items():
            rows[name].append(value)
    if not done:
        raise AsdError("none of the recordings could be embedded")
    names = {next(iter(rows)): "embedding"} if len(rows) == 1 else {}
    arrays = {names.get(name, name): np.stack(values) for name, values in rows.items()}
    save_arrays(Path(args.output), {"file": np.array(done), **arrays})
    if args.json:
        dims = {name: int(values.shape[1]) for name, values in arrays.items()}
        print_json({"output": args.output, "files": len(done), "unreadable": len(files) - len(done), "dims": dims})
    else:
        print(f"{args.output}: {len(done)} of {len(files)} recordings, {', '.join(arrays)}")
    return 0 if len(done) == len(files) else 1
