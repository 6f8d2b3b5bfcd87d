"""Checkpoints of a few bytes that ask for gigabytes: each is refused in one line, under a memory limit.

All are read by one process that may take 1 GiB more than it has after its imports.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asd_train.backbones import build
from asd_train.pickle_limits import check_program

STOP = b"."
READER = """
import json, resource, sys
from asd_train.backbones import load_backbone
from asd_train.checkpoints import CheckpointError
(data,) = (int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + (1 << 30),) * 2)
for path in sys.argv[1:]:
    try:
        found = load_backbone(path).name
    except CheckpointError as error:
        found = str(error)
    except MemoryError:
        found = "MemoryError"
    print(json.dumps([path, found]), flush=True)
"""


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def nested_pairs(levels: int, kind: bytes) -> bytes:
    """x = (x, x), `levels` times: 2**levels leaves when written out."""
    return b"N" + b"".join(b"2" + kind for _ in range(levels))


def copied_pairs(pairs: int, copies: int) -> bytes:
    """OrderedDict(the same list of pairs), again and again."""
    listed = b"](" + b"".join(b"J" + struct.pack("<i", number) + b"N\x86" for number in range(pairs)) + b"e"
    once = get(0) + get(1) + b"\x85R"
    return b"ccollections\nOrderedDict\n" + put(0) + listed + put(1) + b"(" + once * copies + b"l"


PROGRAMS = {
    "memo index": (b"N" + put(150_000_000) + STOP, "memo index 150000000"),
    "memo index in text": (b"Np999999999\n.", "memo index 999999999"),
    "negative memo index": (b"Np-1\n.", "memo index -1"),
    "long integer": (b"\x8b" + struct.pack("<i", 50_000_000) + b"\x01" * 50_000_000 + STOP, "an integer of"),
    "long integer in text": (b"L" + b"9" * 1_000_000 + b"L\n.", "damaged"),
    "nested tuples": (b"}N" + b"\x85" * 1_000_000 + b"Ns.", "nested more than 100 deep"),
    "tuples that double": (b"}N" + b"2\x86" * 60 + b"Ns.", "nested tuple of more than"),
    "tuples that double by memo": (
        b"}N" + b"".join(put(2 * n) + b"0(" + get(2 * n) * 2 + b"t" for n in range(60)) + b"Ns.",
        "nested tuple of more than",
    ),
    "DUP and APPENDS": (b"](N" + b"2" * 3_000_000 + b"e.", "more than 2000000 opcodes"),
    "empty dicts": (b"(" + b"}" * 20_000_000 + b"l.", "more than 2000000 opcodes"),
    "copied dicts": (copied_pairs(100_000, 100_000) + STOP, "pairs are copied"),
    "classes": (b"(" + b"ca\nb\n" * 400_000 + b"l.", "more than 10000 names"),
    "BINUNICODE beyond the file": (b"X" + struct.pack("<I", 4_000_000_000) + b"abc.", "damaged"),
    "BINUNICODE8 beyond the file": (b"\x8d" + struct.pack("<Q", 1 << 40) + b"abc.", "damaged"),
    "BINBYTES8 beyond the file": (b"\x8e" + struct.pack("<Q", 1 << 34) + b"abc.", "damaged"),
    "BYTEARRAY8 beyond the file": (b"\x96" + struct.pack("<Q", 1 << 34) + b"abc.", "damaged"),
    "frame beyond the file": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.", "damaged"),
    "long program": (b"X" + struct.pack("<I", 70_000_000) + b"a" * 70_000_000 + STOP, "longer than 64 MiB"),
    "storage named by a tuple": (
        b"(Vstorage\nctorch\nFloatStorage\nN" + b"2\x86" * 12 + b"Vcpu\nI16\ntQ.",
        "without a name",
    ),
}


def doubled(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def change_tensors(content: dict[str, Any]) -> None:
    shared = torch.zeros(1 << 20)
    content["model"] |= {f"x{number}": shared for number in range(2000)}


# What stands in a sound file: a configuration or tensors that ask for too much.
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "lists that double": (lambda content: content["cfg"].update(x=doubled(60)), "more than 1000000 values"),
    "wide encoder": (lambda content: content["cfg"].update(encoder_embed_dim=65536), "weights do not fit"),
    "huge width": (lambda content: content["cfg"].update(encoder_embed_dim=1 << 60), "not usable"),
    "deep encoder": (lambda content: content["cfg"].update(encoder_layers=10**9), "not usable"),
    "one storage for many tensors": (change_tensors, "far more than the file"),
}


def tiny_beats(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    backbone = build("beats", "tiny")
    content = {"cfg": backbone.config, "model": dict(backbone.state_dict())}
    change(content)
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process with a memory limit says of each bomb, by its name."""
    if not Path("/proc/self/status").exists():
        pytest.skip("RLIMIT_DATA limits memory on Linux only")
    folder = tmp_path_factory.mktemp("bombs")
    paths = []
    for name, (program, _) in PROGRAMS.items():
        paths.append(folder / f"{name}.pt")
        with zipfile.ZipFile(paths[-1], "w") as out:
            out.writestr("archive/data.pkl", program)
    paths += [tiny_beats(folder / f"{name}.pt", change) for name, (change, _) in CHANGES.items()]
    paths.append(tiny_beats(folder / "sound.pt", lambda content: None))
    done = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    for path in paths:
        path.unlink()
    return {Path(path).stem: answer for path, answer in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", [*PROGRAMS, *CHANGES])
def test_a_bomb_is_refused_in_one_line(name: str, answers: dict[str, str]) -> None:
    expected = (PROGRAMS | CHANGES)[name][1]  # type: ignore[operator]
    assert expected in answers[name]
    assert "\n" not in answers[name]
    assert len(answers[name]) < 400


def test_a_sound_checkpoint_passes_under_the_same_limit(answers: dict[str, str]) -> None:
    assert answers["sound"] == "beats"


def test_the_limits_are_far_from_real_checkpoints(shared_dir: Path) -> None:
    """A training checkpoint with optimiser states has some 50 times the opcodes of a plain state dict."""
    for path in [*shared_dir.glob("checkpoints/*.pt"), *shared_dir.glob("reference/*/*.pt")]:
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            program = archive.read(name)
        check_program(program)
        assert len(program) < 1 << 20
