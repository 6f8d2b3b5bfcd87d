"""The encoder gives the named embeddings, refuses what must not be scored, and is shared."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from asd_agent.encode.bundle import Bundle, resolve
from asd_agent.encode.cpu import cpu_flags, preferred_variant
from asd_agent.encode.encoder import Encoder, choose_variant, shared_encoder
from asd_agent.errors import BundleError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Bundle.load("default"))


@pytest.fixture
def noise() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)


def changed(folder: Path, change: Callable[[dict], None], graph: bytes | None = None) -> Bundle:
    """A copy of the shipped bundle whose description is consistent with its files but not with its graph."""
    shutil.copytree(resolve("default"), folder)
    if graph is not None:
        (folder / "encoder.onnx").write_bytes(graph)
    data = json.loads((folder / "bundle.json").read_text())
    data["variants"]["fp32"]["sha256"] = hashlib.sha256((folder / "encoder.onnx").read_bytes()).hexdigest()
    change(data)
    (folder / "bundle.json").write_text(json.dumps(data))
    return Bundle.load(folder)


def unchanged(_: dict) -> None:
    pass


def test_embeddings_are_those_of_the_description(encoder: Encoder, noise: np.ndarray) -> None:
    embeddings = encoder.embed(noise)
    assert {k: v.shape for k, v in embeddings.items()} == {o.name: (o.dim,) for o in encoder.bundle.meta.outputs}
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in embeddings.values())


def test_other_types_and_strides_give_the_same(encoder: Encoder, noise: np.ndarray) -> None:
    stereo = np.stack([noise, noise[::-1]], axis=1)
    for same in (noise.astype(np.float64), stereo[:, 0]):
        for name, value in encoder.embed(same).items():
            np.testing.assert_array_equal(value, encoder.embed(noise)[name])


@pytest.mark.parametrize("shape", [(0,), (15_999,), (1, 32_000), (32_000, 1)])
def test_wrong_lengths_and_shapes_are_refused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=r"takes at least 16000 samples .* window_s"):
        encoder.embed(np.ones(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_never_get_an_embedding(encoder: Encoder, noise: np.ndarray, value: float) -> None:
    noise[12_345] = value
    with pytest.raises(BundleError, match="not finite"):
        encoder.embed(noise)


def test_silence_is_finite(encoder: Encoder) -> None:
    assert all(np.isfinite(v).all() for v in encoder.embed(np.zeros(16_000, np.float32)).values())


def test_a_fixed_window_is_kept_to(tmp_path: Path, noise: np.ndarray) -> None:
    encoder = Encoder(changed(tmp_path / "fixed", lambda data: data.update(window_samples=32_000)))
    assert encoder.embed(noise)
    with pytest.raises(BundleError, match="takes 32000 samples"):
        encoder.embed(noise[:-1])


def _other_dim(data: dict) -> None:
    data["outputs"][3].update(dim=36, axes=[])


def _other_name(data: dict) -> None:
    data["outputs"][3]["name"] = "rhythm"


def _fewer(data: dict) -> None:
    data["outputs"].pop()


@pytest.mark.parametrize(("change", "told"), [(_other_dim, "36"), (_other_name, "rhythm"), (_fewer, "modulation")])
def test_a_graph_that_is_not_as_described_is_refused(tmp_path: Path, change: Callable[[dict], None], told: str) -> None:
    bundle = changed(tmp_path / "other", change)
    with pytest.raises(BundleError, match=r"encoder\.onnx: does not fit bundle\.json") as caught:
        Encoder(bundle)
    assert told in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, 400_000])
def test_a_broken_graph_with_a_matching_checksum_is_one_line(tmp_path: Path, keep: int) -> None:
    graph = (resolve("default") / "encoder.onnx").read_bytes()[:keep]
    bundle = changed(tmp_path / "broken", unchanged, graph)
    with pytest.raises(BundleError, match=r"encoder\.onnx: ") as caught:
        Encoder(bundle)
    assert "\n" not in str(caught.value)


def _single_output(data: dict) -> None:
    data["outputs"] = [{"name": "embedding", "dim": 2, "distance": "cosine"}]


def small_graph(node: str, dim: int | str = 2, batch: int | str = "batch") -> bytes:
    """waveform -> the first two samples through one operator; the declared size may be a lie or a name."""
    onnx = pytest.importorskip("onnx")
    parser = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        encoder (float[{batch}, samples] waveform) => (float[{batch}, {dim}] embedding)
        <int64[1] start = {{0}}, int64[1] end = {{2}}, int64[1] axis = {{1}}>
        {{ first = Slice(waveform, start, end, axis)  embedding = {node}(first) }}
    """
    return bytes(onnx.parser.parse_model(parser).SerializeToString())


def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path, noise: np.ndarray) -> None:
    encoder = Encoder(changed(tmp_path / "log", _single_output, small_graph("Log")))
    assert list(encoder.embed(np.abs(noise) + 1)) == ["embedding"]
    with pytest.raises(BundleError, match=r"'embedding' is not finite for finite samples"):
        encoder.embed(-np.abs(noise) - 1)


def test_a_size_that_only_a_run_shows_is_checked_then(tmp_path: Path, noise: np.ndarray) -> None:
    def three(data: dict) -> None:
        data["outputs"] = [{"name": "embedding", "dim": 3, "distance": "cosine"}]

    encoder = Encoder(changed(tmp_path / "named", three, small_graph("Abs", dim="dim")))
    with pytest.raises(BundleError, match=r"is \[1, 2\], bundle.json says \[1, 3\]"):
        encoder.embed(noise)


def test_a_graph_of_another_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="its input is"):
        Encoder(changed(tmp_path / "batch", _single_output, small_graph("Abs", batch=4)))


def test_a_graph_saved_after_optimisation_is_run_as_it_is(tmp_path: Path, noise: np.ndarray) -> None:
    def optimised(data: dict) -> None:
        data["variants"]["fp32"]["optimised"] = True

    as_it_is = Encoder(changed(tmp_path / "optimised", optimised)).embed(noise)
    for name, value in Encoder(Bundle.load("default")).embed(noise).items():
        np.testing.assert_allclose(as_it_is[name], value, atol=1e-3)


def test_machines_share_one_session(tmp_path: Path) -> None:
    shutil.copytree(resolve("default"), tmp_path / "copy")
    first = shared_encoder(Bundle.load("default"))
    assert shared_encoder(Bundle.load(tmp_path / "copy"), "fp32") is first
    assert shared_encoder(Bundle.load("default"), threads=2) is not first
    other = changed(tmp_path / "other", lambda data: data.update(licence="other"))
    assert shared_encoder(other) is not first


def test_a_session_that_nobody_holds_is_closed() -> None:
    encoder = shared_encoder(Bundle.load("default"), threads=3)
    identity = id(encoder._session)
    gone = []
    weakref.finalize(encoder, gone.append, identity)
    del encoder
    gc.collect()
    assert gone == [identity]


def test_threads_may_share_an_encoder(noise: np.ndarray) -> None:
    windows = [np.roll(noise, shift) * np.linspace(0.1, 1, noise.size, dtype=np.float32) for shift in range(8)]
    alone = [Encoder(Bundle.load("default")).embed(window) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        encoders = list(pool.map(lambda _: shared_encoder(Bundle.load("default")), range(8)))
        together = list(pool.map(lambda pair: pair[0].embed(pair[1]), zip(encoders, windows, strict=True)))
    assert len(set(map(id, encoders))) == 1
    for one, other in zip(alone, together, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("available", "flags", "wanted"),
    [
        (("fp32", "int8"), {"avx2", "avx_vnni"}, "int8"),
        (("fp32", "int8"), {"avx512f", "avx512_vnni"}, "int8"),
        (("fp32", "int8"), {"asimd", "asimddp"}, "int8"),
        (("fp32", "int8"), {"avx2", "avx512f", "asimd"}, "fp32"),
        (("fp32", "int8"), set(), "fp32"),
        (("fp32",), {"avx512_vnni"}, "fp32"),
        (("int8",), set(), "int8"),
    ],
)
def test_int8_only_where_the_cpu_has_byte_dot_products(
    available: tuple[str, ...], flags: set[str], wanted: str
) -> None:
    assert preferred_variant(available, flags) == wanted


def test_flags_of_x86_and_arm(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\nbugs\t\t: none\n")
    assert cpu_flags(file) == {"fpu", "avx2", "avx_vnni"}
    file.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n")
    assert cpu_flags(file) == {"fp", "asimd", "asimddp"}
    assert cpu_flags(tmp_path / "absent") == set()


def test_asking_for_a_variant_that_is_not_there() -> None:
    with pytest.raises(BundleError, match="has no int8 variant; it has fp32"):
        choose_variant(Bundle.load("default"), "int8")


def test_running_a_bundle_needs_neither_torch_nor_onnx_nor_scipy() -> None:
    code = (
        "import sys, numpy as np\n"
        "from asd_agent.encode.bundle import Bundle\n"
        "from asd_agent.encode.encoder import Encoder\n"
        "from asd_agent.memory import lean_malloc\n"
        "assert lean_malloc() in (True, False)\n"
        "Encoder(Bundle.load('default')).embed(np.ones(16000, np.float32))\n"
        "print(sorted({'torch', 'onnx', 'scipy', 'soxr', 'rich'} & {m.split('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
