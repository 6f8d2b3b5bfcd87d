"""The shipped spectral bundle: equal to its recipe, blind to gain, polarity and offset, and reproducible."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.encode import deviation
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.encode.meta import BundleMeta
from asd_agent.errors import BundleError

RATE_HZ = 16_000
TOLERANCE_DB = 1e-4


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load("spectral")


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return Encoder(bundle)


# --- the recipe once more, literally, segment by segment, in numpy float64; shares no code with the graph


def hann(n: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def frames(x: np.ndarray, length: int, hop: int) -> np.ndarray:
    return np.stack([x[i : i + length] for i in range(0, len(x) - length + 1, hop)])


def power(x: np.ndarray, window: np.ndarray, n: int | None = None) -> np.ndarray:
    return np.abs(np.fft.rfft(x * window, n, axis=-1)) ** 2 / np.sum(window**2)


def decibel(p: np.ndarray, floor: float = 1e-8) -> np.ndarray:
    return 10 * np.log10(p + floor)


def less_mean(levels: np.ndarray) -> np.ndarray:
    return levels - levels.mean()


def mel_bank(bands: int, n_fft: int) -> np.ndarray:
    """[bands, bins]: each weight is the mean of the mel triangle over the width of the bin."""
    mel = np.linspace(1127 * np.log(1 + 60 / 700), 1127 * np.log(1 + 8000 / 700), bands + 2)
    hz = 700 * (np.exp(mel / 1127) - 1)
    bank = np.zeros((bands, n_fft // 2 + 1))
    for band in range(bands):
        low, centre, high = hz[band : band + 3]
        for k in range(n_fft // 2 + 1):
            left, right = (np.array([k - 0.5, k + 0.5]) * RATE_HZ / n_fft).tolist()
            knots = np.unique(np.clip([left, low, centre, high, right], left, right))
            triangle = np.interp(knots, [low, centre, high], [0, 1, 0], left=0, right=0)
            bank[band, k] = np.sum((triangle[1:] + triangle[:-1]) / 2 * np.diff(knots))
    return bank / bank.sum(axis=1, keepdims=True)


MEL_64, MEL_20 = mel_bank(64, 1024), mel_bank(20, 128)


def fine_edges() -> list[int]:
    edges = {round(60 * 2 ** (k / 48) / 2) for k in range(400) if 60 * 2 ** (k / 48) < 8000}
    return [*sorted(edges), 4001]


def recipe(window: np.ndarray) -> dict[str, np.ndarray]:
    x = window.astype(np.float64)
    x = x - x.mean()
    x = x / np.sqrt(np.mean(x**2))
    mels, stats, backgrounds, fines, modulations, each = [], [], [], [], [], []
    for segment in frames(x, 16_000, 8_000):
        mel = power(frames(segment, 1024, 256), hann(1024)) @ MEL_64.T
        mels.append(mel.mean(axis=0))
        stats.append(np.concatenate([decibel(mel).mean(axis=0), decibel(mel).std(axis=0)]))
        backgrounds.append(1 / np.mean(1 / (mel + 1e-8), axis=0))
        fines.append(power(frames(segment, 8000, 4000), hann(8000)).mean(axis=0))
        envelopes = decibel(power(frames(segment, 128, 32), hann(128)) @ MEL_20.T)
        each.append([power(c - c.mean(), np.ones(len(c)), 500) for c in envelopes.T])
        curve = envelopes.mean(axis=1)
        modulations.append(power(curve - curve.mean(), np.ones(len(curve)), 500))
    edges, fine, modulation = fine_edges(), np.mean(fines, axis=0), np.mean(modulations, axis=0)
    wide = [round(32 * (251 / 32) ** (i / 6)) for i in range(7)]
    rates = [1, 5, 9, 17, 32, 65, 129, 251]
    return {
        "logmel": decibel(np.mean(mels, axis=0)),
        "logmel_stats": np.mean(stats, axis=0),
        "background": less_mean(decibel(np.mean(backgrounds, axis=0))),
        "fine_spectrum": less_mean(decibel(np.array([fine[a:b].mean() for a, b in itertools.pairwise(edges)]))),
        "modulation": decibel(
            np.append(modulation[1:32], [modulation[a:b].mean() for a, b in itertools.pairwise(wide)]),
            floor=1e-6,
        ),
        "band_modulation": decibel(
            np.array([[band[a:b].mean() for a, b in itertools.pairwise(rates)] for band in np.mean(each, axis=0)]),
            floor=1e-6,
        ).ravel(),
    }


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance_db: float) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance_db, err_msg=name)


def machine(seed: int = 0, seconds: float = 3.0) -> np.ndarray:
    """Hum, a gear tone with sidebands, coloured noise and impacts, about 0.1 full scale."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = np.convolve(rng.standard_normal(t.size), [1, 0.9, 0.5], mode="same") * (1 + 0.3 * np.sin(75 * t))
    tones = np.sin(2 * np.pi * 50 * t) + 0.5 * np.sin(2 * np.pi * 573 * t + 0.4 * np.sin(2 * np.pi * 25 * t))
    impacts = np.exp(-((t * 37) % 1) * 20) * np.sin(2 * np.pi * 3100 * t)
    return (0.05 * (tones + 0.4 * noise + impacts)).astype(np.float32)


# --- equal to the recipe


@pytest.mark.parametrize("seconds", [1.0, 1.7, 2.0, 10.0])
def test_equal_to_the_recipe_on_synthetic_sound(encoder: Encoder, seconds: float) -> None:
    window = machine(seconds=seconds)
    assert_equal(encoder.embed(window), recipe(window), TOLERANCE_DB)


def test_equal_to_the_recipe_on_real_sound(encoder: Encoder, shared_dir: Path) -> None:
    files = sorted((shared_dir / "data" / "bldc_m1").rglob("*.flac"))[::4]
    files += sorted((shared_dir / "data" / "compressor").rglob("*.flac"))[::80]
    assert files
    for file in files:
        samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
        window = soxr.resample(samples[:, 0], rate_hz, RATE_HZ)
        # Beyond the resampler's edge there are -80 dB left, where the rounding of float32 begins to show.
        assert_equal(encoder.embed(window), recipe(window), 10 * TOLERANCE_DB)


def test_what_is_left_at_the_end_is_not_used_but_for_the_level(encoder: Encoder) -> None:
    window = machine()[: 2 * RATE_HZ + 7_999]
    assert_equal(encoder.embed(window), recipe(window), TOLERANCE_DB)


def test_a_batch_is_its_windows(bundle: Bundle, encoder: Encoder) -> None:
    windows = np.stack([machine(seed) for seed in range(3)])
    session = onnxruntime.InferenceSession(str(bundle.graph("fp32")), providers=["CPUExecutionProvider"])
    together = session.run([o.name for o in bundle.meta.outputs], {"waveform": windows})
    for i, window in enumerate(windows):
        for name, values in zip(recipe(window), together, strict=True):
            np.testing.assert_allclose(values[i], encoder.embed(window)[name], atol=TOLERANCE_DB)


# --- blind to what is not the machine


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 1), st.booleans(), st.integers(0, 5))
def test_gain_and_polarity_do_not_matter(decades: float, inverted: bool, seed: int) -> None:
    encoder = Encoder(Bundle.load("spectral"))
    window = machine(seed, 1.5)
    gain = np.float32(10.0**decades * (-1 if inverted else 1))
    assert_equal(encoder.embed(window * gain), encoder.embed(window), TOLERANCE_DB)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.integers(0, 5))
def test_an_offset_does_not_matter(offset: float, seed: int) -> None:
    encoder = Encoder(Bundle.load("spectral"))
    window = machine(seed, 1.5)
    # Not the graph's error alone: the sum is rounded to float32, which adds noise 125 dB below the sound.
    assert_equal(encoder.embed(window + np.float32(offset)), encoder.embed(window), 2e-3)


# --- sensitive to what is


def values_of(bundle: Bundle, name: str, axis: int = 0) -> np.ndarray:
    output = next(o for o in bundle.meta.outputs if o.name == name)
    return np.array(output.axes[axis].values)


@pytest.mark.parametrize("tone_hz", [100.0, 440.0, 1234.0, 5000.0, 7900.0])
def test_a_tone_shows_at_its_frequency(bundle: Bundle, encoder: Encoder, tone_hz: float) -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal(2 * RATE_HZ)
    tone = 0.1 * np.sin(2 * np.pi * tone_hz * np.arange(2 * RATE_HZ) / RATE_HZ)
    embeddings = encoder.embed((noise + tone).astype(np.float32))
    fine_hz = values_of(bundle, "fine_spectrum")
    assert fine_hz[np.argmax(embeddings["fine_spectrum"])] == pytest.approx(tone_hz, rel=0.03)
    mel_hz = values_of(bundle, "logmel")
    nearest = np.argmin(np.abs(mel_hz - tone_hz))
    assert abs(np.argmax(embeddings["logmel"]) - nearest) <= 1
    assert abs(np.argmax(embeddings["logmel_stats"][:64]) - nearest) <= 1


@pytest.mark.parametrize("rate", [3, 12, 31])
def test_amplitude_modulation_shows_at_its_rate(bundle: Bundle, encoder: Encoder, rate: int) -> None:
    noise = np.random.default_rng(0).standard_normal(4 * RATE_HZ)
    swing = 1 + 0.5 * np.sin(2 * np.pi * rate * np.arange(4 * RATE_HZ) / RATE_HZ)
    embedding = encoder.embed((0.1 * noise * swing).astype(np.float32))["modulation"]
    assert values_of(bundle, "modulation")[np.argmax(embedding[:31])] == rate


@pytest.mark.parametrize("carrier_hz", [400.0, 1500.0, 5000.0])
def test_impacts_show_in_the_band_where_they_ring(bundle: Bundle, encoder: Encoder, carrier_hz: float) -> None:
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time_s))
    ringing = np.exp(-200 * (time_s % (1 / 40))) * np.sin(2 * np.pi * carrier_hz * time_s)
    steady, rings = (encoder.embed(x.astype(np.float32))["band_modulation"] for x in (noise, noise + ringing))
    output = next(o for o in bundle.meta.outputs if o.name == "band_modulation")
    found = deviation.changes(output, rings - steady, rings - steady)[0]
    assert found.quantity == "modulation"
    assert found.band_hz is not None
    assert found.band_hz[0] <= carrier_hz <= found.band_hz[1]


def test_a_louder_hum_moves_the_other_bands_of_the_level_and_hardly_those_of_the_shape(
    bundle: Bundle, encoder: Encoder
) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(4 * RATE_HZ)
    hum = np.sin(2 * np.pi * 100 * np.arange(4 * RATE_HZ) / RATE_HZ)
    quiet, loud = (encoder.embed((noise + level * hum).astype(np.float32)) for level in (0.1, 0.2))
    for name, least, most in (("logmel", 4.0, 7.0), ("background", 0.0, 0.5), ("fine_spectrum", 0.0, 0.5)):
        moved = np.abs(quiet[name] - loud[name])[values_of(bundle, name) > 1000]
        assert least <= np.median(moved) <= most, name


def test_labels_rise_and_cover_the_band(bundle: Bundle) -> None:
    for output in bundle.meta.outputs:
        for axis in output.axes:
            assert np.all(np.diff(axis.values) > 0), output.name
    fine_hz = values_of(bundle, "fine_spectrum")
    assert fine_hz[0] < 65
    assert fine_hz[-1] > 7900
    upper = fine_hz[fine_hz > 500]
    assert len(upper) / np.log2(upper[-1] / upper[0]) == pytest.approx(48, rel=0.02)
    carriers = [a.band_hz for o in bundle.meta.outputs for a in o.axes if a.band_hz is not None]
    assert (carriers[0][0], carriers[-1][1]) == (60, 8000)
    assert all(below[1] == above[0] for below, above in itertools.pairwise(carriers))


# --- the tool


def test_the_shipped_files_are_what_the_tool_writes(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx (extra: export)")
    from asd_export import spectral

    for name in ("first", "second"):
        spectral.write(tmp_path / name)
        for file in ("encoder.onnx", "bundle.json"):
            assert (tmp_path / name / file).read_bytes() == (bundle.folder / file).read_bytes(), (
                f"{file} differs: run python -m asd_export.spectral {bundle.folder}"
            )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="needs onnx (extra: export)")
    from asd_export import spectral

    assert spectral.main([str(tmp_path / "out")]) == 0
    assert Bundle.load(tmp_path / "out").meta == Bundle.load("spectral").meta
    assert spectral.main([]) == 2
    (tmp_path / "file").touch()
    assert spectral.main([str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err


# --- the writer of bundles


def written(folder: Path, graph: bytes | Path, *, replace: bool = False) -> BundleMeta:
    from asd_export.write import write_bundle

    return write_bundle(folder, Bundle.load("spectral").meta, {"fp32": graph}, replace=replace)


def test_write_computes_the_checksums(tmp_path: Path) -> None:
    (tmp_path / "graph").write_bytes(b"from a file")
    for name, graph in (("bytes", b"from a file"), ("file", tmp_path / "graph")):
        meta = written(tmp_path / name, graph)
        assert meta.variants["fp32"].sha256 == hashlib.sha256(b"from a file").hexdigest()
        assert Bundle.load(tmp_path / name).meta == meta


def test_write_does_not_touch_what_exists_unless_asked(tmp_path: Path) -> None:
    written(tmp_path / "out", b"one")
    with pytest.raises(BundleError, match="already exists"):
        written(tmp_path / "out", b"two")
    assert (tmp_path / "out" / "encoder.onnx").read_bytes() == b"one"
    written(tmp_path / "out", b"two", replace=True)
    assert (tmp_path / "out" / "encoder.onnx").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    written(tmp_path / "out", b"one")
    with pytest.raises(BundleError, match="cannot be written"):
        written(tmp_path / "out", tmp_path / "absent", replace=True)
    assert (tmp_path / "out" / "encoder.onnx").read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
