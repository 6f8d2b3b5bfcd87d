"""Encoders of true size with random weights: torch against onnxruntime fp32 and int8, one window of 10 s.

    python benchmarks/backbones.py --models bandsplit --minutes 1 -o benchmarks/results/bandsplit.json
    python benchmarks/backbones.py [--minutes 4] [--models beats,eat] [-o benchmarks/results/backbones.json]

Everything that is compared takes turns in one run, and the least time counts, so that a busy machine disturbs all
alike. With one thread it is the processor's time (what others take in between is not ours), with two the clock's.
Needs the extra `export`, and kaldi-native-fbank for the filterbank's rival (left out where it is absent).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host
import msgspec
import numpy as np
import onnxruntime as ort
import torch

from asd_agent import config
from asd_agent.bank import fit
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.encode.meta import Output
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Block
from asd_agent.windowing.windower import Windower
from asd_export.bundle import export_bundle
from asd_export.optimise import fuse, simplify
from asd_export.subject import Subject
from asd_export.trace import trace
from asd_train.backbones import build
from asd_train.embed import PooledEncoder
from asd_train.frontend import BeatsFrontend

WINDOW_S, RATE_HZ = 10, 16_000
SAMPLES = WINDOW_S * RATE_HZ
BANK = 990

# Prints MiB: resident and at most, of an agent's process after some windows.
_MEMORY = """
import sys
import asd_agent.cli, asd_agent.scoring.pipeline, asd_agent.service.daemon, asd_agent.store, asd_agent.publish
import numpy as np
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.memory import lean_malloc
lean_malloc()
encoder = Encoder(Bundle.load(sys.argv[1]), sys.argv[2])
window = 0.1 * np.random.default_rng(0).standard_normal(int(sys.argv[3])).astype(np.float32)
for _ in range(8):
    encoder.embed(window)
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(*(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")))
"""


class Clock:
    """The least time of each contestant; they take turns. now: the time of the processor or of the wall."""

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        self.now = now
        self.runs: dict[str, Callable[[], object]] = {}
        self.least_s: dict[str, float] = {}
        self.rounds = 0

    def compare(self, seconds: float) -> None:
        for run in self.runs.values():
            run()
        self.least_s = dict.fromkeys(self.runs, float("inf"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.rounds += 1
            for name, run in self.runs.items():
                began = self.now()
                run()
                self.least_s[name] = min(self.least_s[name], self.now() - began)

    def ms(self, name: str) -> float:
        return round(1000 * self.least_s[name], 2)

    def ratio(self, slow: str, fast: str) -> float:
        return round(self.least_s[slow] / self.least_s[fast], 3)


def gflop(name: str) -> float:
    """Multiplications and additions of one window: matrix products, attention, BEATs' positional convolution."""
    backbone = build(name, "base")
    (tokens,) = backbone(torch.zeros(1, SAMPLES))
    sequences = max(1, backbone.class_count)  # the bands of bandsplit
    length = tokens.features.shape[1] * tokens.features.shape[2] // sequences + (tokens.cls is not None)
    weights = sum(module.weight.numel() for module in backbone.modules() if isinstance(module, torch.nn.Linear))
    attention = 2 * backbone.layers * length * backbone.dim
    convolution = 128 * backbone.dim**2 // 16 if name == "beats" else 0
    return 2 * sequences * length * (weights + attention + convolution) / 1e9


def subject(name: str) -> Subject:
    torch.manual_seed(0)
    backbone = build(name, "base").eval()
    encoder = PooledEncoder(backbone, (backbone.layers,), "mean")

    class Single(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.encoder(waveform),)

    return Subject(
        module=Single(),
        outputs=[Output(name="embedding", dim=encoder.dim, distance="cosine")],
        name=f"{name}-base-random",
        rate_hz=RATE_HZ,
        lowest_rate_hz=None,
        min_samples=backbone.min_samples,
        clip_s=None,
        fixed_length=False,
        front_end="",
        licence="none",
        source="random",
        sha256="",
        settings={},
    )


def measure(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    made = subject(name)
    began = time.monotonic()
    meta = export_bundle(made, folder / name)
    export_s = time.monotonic() - began
    bundle = Bundle.load(folder / name)
    sizes = {variant: round(bundle.graph(variant).stat().st_size / 1e6, 1) for variant in meta.variants}
    result: dict[str, Any] = {"gflop": round(gflop(name), 1), "file_mb": sizes, "export_s": round(export_s, 1)}
    result["centred_cosine_int8"] = round(meta.parity["int8"]["embedding"]["mean_centred_cosine"], 4)
    for threads in (1, 2):
        result[f"threads_{threads}"] = _race(made, bundle, threads, seconds)
    result["agent"] = {variant: _agent(bundle, variant, seconds / 2) for variant in ("fp32", "int8")}
    result["memory_mb"] = {variant: _memory(bundle, variant, size) for variant, size in sizes.items()}
    return result


def _race(made: Subject, bundle: Bundle, threads: int, seconds: float) -> dict[str, Any]:
    torch.set_num_threads(threads)
    sound = 0.1 * torch.randn(1, SAMPLES)
    a, b = torch.randn(512, 768), torch.randn(768, 3072)
    clock = Clock() if threads == 1 else Clock(time.perf_counter)

    def torch_eager() -> None:
        with torch.inference_mode():
            made.module(sound)

    clock.runs = {"torch": torch_eager, "sgemm": lambda: [a @ b for _ in range(8)]}
    for variant in ("fp32", "int8"):
        session = _bare(bundle, variant, threads)
        clock.runs[variant] = lambda session=session: session.run(None, {"waveform": sound.numpy()})
    clock.compare(seconds)
    sgemm = 8 * 2 * 512 * 768 * 3072 / clock.least_s["sgemm"] / 1e9
    rate = gflop(made.name.partition("-")[0]) / clock.least_s["fp32"]
    return {
        "rounds": clock.rounds,
        "ms": {name: clock.ms(name) for name in ("torch", "fp32", "int8")},
        "times_torch": {name: clock.ratio("torch", name) for name in ("fp32", "int8")},
        "sgemm_gflops": round(sgemm, 1),
        "fp32_share_of_sgemm": round(rate / sgemm, 3),
        "torch_share_of_sgemm": round(rate * clock.least_s["fp32"] / clock.least_s["torch"] / sgemm, 3),
    }


def _bare(bundle: Bundle, variant: str, threads: int) -> ort.InferenceSession:
    """A session with the agent's own settings, and nothing around it."""
    return Encoder(bundle, variant, threads)._session


def _agent(bundle: Bundle, variant: str, seconds: float) -> dict[str, float]:
    """All that the agent does for a window (cut, quality, encoder, nearest of 990) against the session alone."""
    machine = msgspec.convert(
        {"id": "m", "source": {"kind": "simulated"}, "window_s": WINDOW_S, "hop_s": WINDOW_S},
        config.Machine,
    )
    encoder = Encoder(bundle, variant)
    pipeline = Pipeline(machine, {"bench": encoder}, None)
    rng = np.random.default_rng(0)
    bank = fit("cosine", rng.standard_normal((BANK, bundle.meta.outputs[0].dim)))
    noise = 0.1 * rng.standard_normal((SAMPLES, 1)).astype(np.float32)
    batch = np.ascontiguousarray(noise.T)

    def window() -> None:
        windower = Windower(RATE_HZ, WINDOW_S, WINDOW_S, pipeline.rates)
        (cut,) = windower.push(Block(noise, RATE_HZ, 0, 0.0, 0.0, last=True), 0)
        bank.distance(pipeline.describe(cut).embeddings["embedding"][None])

    clock = Clock()
    clock.runs = {"window": window, "session": lambda: encoder._session.run(None, {"waveform": batch})}
    clock.compare(seconds)
    return {
        "window_ms": clock.ms("window"),
        "session_ms": clock.ms("session"),
        "ratio": clock.ratio("window", "session"),
    }


def _memory(bundle: Bundle, variant: str, file_mb: float) -> dict[str, float]:
    arguments = [sys.executable, "-c", _MEMORY, str(bundle.folder), variant, str(SAMPLES)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    resident, most = (float(word) * 1.048576 for word in done.stdout.split())
    return {"resident": round(resident), "most": round(most), "most_beyond_file": round(most - file_mb)}


def filterbank(seconds: float) -> dict[str, Any]:
    """BEATs' filterbank of 10 s on one thread: our graph, our torch module, kaldi-native-fbank."""
    torch.set_num_threads(1)
    frontend = BeatsFrontend()

    class Mel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frontend = frontend

        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return self.frontend(waveform)[0]

    graph = fuse(simplify(trace(Mel(), ["mel"], SAMPLES, fixed=True)))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.SerializeToString(), options)
    sound = (0.1 * np.random.default_rng(0).standard_normal(SAMPLES)).astype(np.float32)
    clock = Clock()
    clock.runs = {
        "graph": lambda: session.run(None, {"waveform": sound[None]}),
        "torch": lambda: frontend(torch.from_numpy(sound)[None]),
    }
    rival = _kaldi_native_fbank(sound)
    if rival is not None:
        clock.runs["kaldi_native_fbank"] = rival
        scaled = (session.run(None, {"waveform": sound[None]})[0][0] * 2 * 6.55582) + 15.41663
        difference = float(np.abs(scaled - rival()).max())
    clock.compare(seconds)
    result: dict[str, Any] = {"ms": {name: clock.ms(name) for name in clock.runs}}
    if rival is not None:
        result["times_kaldi_native_fbank"] = clock.ratio("kaldi_native_fbank", "graph")
        result["largest_difference_log_mel"] = round(difference, 5)
    return result


def _kaldi_native_fbank(sound: np.ndarray) -> Callable[[], np.ndarray] | None:
    try:
        import kaldi_native_fbank as knf
    except ImportError:
        return None
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "povey"
    options.frame_opts.samp_freq = RATE_HZ
    options.mel_opts.num_bins = 128
    scaled = (sound * 2**15).tolist()

    def run() -> np.ndarray:
        online = knf.OnlineFbank(options)
        online.accept_waveform(RATE_HZ, scaled)
        online.input_finished()
        return np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--models", default="beats,eat")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results/backbones.json")
    args = parser.parse_args()
    models = args.models.split(",")
    share = 60 * args.minutes / (3 * len(models) + 0.5)
    flags = Path("/proc/cpuinfo").read_text()
    found: dict[str, Any] = {
        "cpu": host.cpu_model(),
        "cpu_features": [flag for flag in ("avx512f", "avx512_vnni", "amx_int8", "avx_vnni") if flag in flags],
        "versions": {"torch": torch.__version__, "onnxruntime": ort.__version__, "python": platform.python_version()},
        "window_s": WINDOW_S,
        "filterbank": filterbank(share / 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            found[name] = measure(name, Path(folder), share)
            print(json.dumps({name: found[name]}, indent=1), flush=True)
    found["load_average"] = os.getloadavg()[2]  # above the number of threads: the two-thread times mean little
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
