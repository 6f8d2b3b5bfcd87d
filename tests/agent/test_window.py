from __future__ import annotations

import itertools

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.errors import SourceError
from asd_agent.types import Block, Samples, Window
from asd_agent.windowing.excerpt import Excerpt
from asd_agent.windowing.resampler import reach_s
from asd_agent.windowing.windower import Windower


def blocks(
    x: Samples, rate_hz: int, sizes: list[int], start: int = 0, gap: bool = False, origin: str = ""
) -> list[Block]:
    """`x` [n] cut into blocks of `sizes`, the rest as one; wall clock 1000 s at frame 0."""
    edges = [0]
    for size in sizes:
        if edges[-1] + size < len(x):
            edges.append(edges[-1] + size)
    edges.append(len(x))
    return [
        Block(
            samples=x[a:b, None],
            rate_hz=rate_hz,
            start_frame=start + a,
            utc_s=1000 + (start + a) / rate_hz,
            monotonic_s=(start + b) / rate_hz,
            gap=gap and a == 0,
            origin=origin,
        )
        for a, b in itertools.pairwise(edges)
    ]


def windows(windower: Windower, parts: list[Block]) -> list[Window]:
    found = [w for block in parts for w in windower.push(block, 0)]
    return found + windower.flush()


def noise(n: int, seed: int = 0) -> Samples:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), max_size=60),
    rates=st.sampled_from([(48_000, 16_000), (44_100, 16_000), (16_000, 16_000), (22_050, 8_000)]),
    hop_s=st.sampled_from([0.05, 0.1, 0.0771]),
)
def test_chunking_does_not_change_the_numbers(sizes: list[int], rates: tuple[int, int], hop_s: float) -> None:
    native, wanted = rates
    x = noise(native // 2 + 17)
    whole = windows(Windower(native, 0.1, hop_s, [wanted]), blocks(x, native, []))
    cut = windows(Windower(native, 0.1, hop_s, [wanted]), blocks(x, native, sizes))
    assert len(whole) == len(cut) >= 4
    for a, b in zip(whole, cut, strict=True):
        assert (a.index, a.start_frame, a.gap) == (b.index, b.start_frame, b.gap)
        np.testing.assert_array_equal(a.samples, b.samples)
        np.testing.assert_array_equal(a.resampled[wanted], b.resampled[wanted])
        assert a.utc_s == pytest.approx(b.utc_s, abs=1e-6)


def test_native_and_resampled_are_cut_at_the_same_times() -> None:
    x = noise(44_100 * 3)
    found = windows(Windower(44_100, 1.0, 0.5, [16_000, 44_100]), blocks(x, 44_100, [4410] * 100))
    at_16k = soxr.resample(x, 44_100, 16_000, quality="HQ")
    assert [w.start_frame for w in found] == [22_050 * k for k in range(5)]
    for k, window in enumerate(found):
        np.testing.assert_array_equal(window.samples, x[22_050 * k : 22_050 * k + 44_100])
        np.testing.assert_array_equal(window.resampled[16_000], at_16k[8000 * k : 8000 * k + 16_000])
        assert window.resampled[44_100] is window.samples
        assert window.utc_s == pytest.approx(1000 + 0.5 * k)
        assert window.monotonic_s == pytest.approx(1 + 0.5 * k, abs=0.1001)
        assert window.duration_s == 1.0


@pytest.mark.parametrize("native", [48_000, 44_100, 22_050, 96_000, 16_001])
def test_the_last_window_of_a_file_is_complete_at_every_rate(native: int) -> None:
    x = noise(2 * native)
    found = windows(Windower(native, 1.0, 1.0, [16_000]), blocks(x, native, [native // 10] * 30))
    assert [len(w.resampled[16_000]) for w in found] == [16_000, 16_000]
    assert not any(w.gap for w in found)


def test_an_incomplete_window_is_left_out_but_a_short_file_is_returned_once() -> None:
    assert len(windows(Windower(8000, 1.0, 0.5, []), blocks(noise(8000 + 3999), 8000, []))) == 1
    (short,) = windows(Windower(8000, 1.0, 0.5, [8000]), blocks(noise(5000), 8000, [100]))
    assert len(short.samples) == 5000
    assert not short.gap


def test_a_gap_ends_the_segment_and_no_window_reaches_across() -> None:
    windower = Windower(8000, 1.0, 0.5, [4000])
    before, after = noise(8000 + 4000 + 700, 1), noise(9000, 2)
    found = windows(windower, blocks(before, 8000, [800] * 20) + blocks(after, 8000, [800] * 20, gap=True))
    assert [(w.index, w.gap, len(w.samples)) for w in found] == [
        (0, False, 8000),
        (1, False, 8000),
        (2, True, 12_700 - 8000),
        (3, False, 8000),
    ]
    np.testing.assert_array_equal(found[2].samples, before[8000:])
    np.testing.assert_array_equal(found[3].samples, after[:8000])
    alone = windows(Windower(8000, 1.0, 0.5, [4000]), blocks(after, 8000, []))
    np.testing.assert_array_equal(found[3].resampled[4000], alone[0].resampled[4000])


def test_blocks_that_were_dropped_on_the_way_are_a_gap_too() -> None:
    parts = blocks(noise(40_000), 8000, [800] * 49)
    found = windows(Windower(8000, 1.0, 1.0, []), parts[:15] + parts[16:])
    assert [(w.start_frame, w.gap) for w in found] == [
        (0, False),
        (8000, True),
        (12_800, False),
        (20_800, False),
        (28_800, False),
    ]


def test_a_gap_does_not_lose_a_window_that_the_resampler_still_held() -> None:
    before = noise(8000)  # exactly one window; its last resampled samples come with the flush
    windower = Windower(8000, 1.0, 1.0, [4000])
    assert windower.push(blocks(before, 8000, [])[0], 0) == []
    (whole,) = windower.push(blocks(noise(100), 8000, [], gap=True)[0], 0)
    assert (whole.gap, len(whole.resampled[4000])) == (False, 4000)


def test_files_are_segments_of_their_own_without_a_gap_between() -> None:
    windower = Windower(8000, 1.0, 0.5, [4000])
    one = blocks(noise(12_000, 1), 8000, [3000] * 4, origin="a.wav")
    two = blocks(noise(16_000, 2), 16_000, [3000] * 5, origin="b.wav")  # of another rate, too
    found = windows(windower, one + two)
    assert [(w.origin, w.rate_hz, w.start_s, w.gap, w.index) for w in found] == [
        ("a.wav", 8000, 0.0, False, 0),
        ("a.wav", 8000, 0.5, False, 1),
        ("b.wav", 16_000, 0.0, False, 2),
    ]


def test_the_last_block_flushes_by_itself() -> None:
    x = noise(48_000)
    (block,) = blocks(x, 48_000, [])
    last = Block(block.samples, 48_000, 0, 0.0, 0.0, origin="a.wav", last=True)
    windower = Windower(48_000, 1.0, 0.5, [16_000])
    assert len(windower.push(last, 0)) == 1
    assert windower.flush() == []


def test_a_bundle_of_a_higher_rate_is_refused_with_both_rates() -> None:
    with pytest.raises(SourceError, match=r"8000 Hz.*16000 Hz"):
        Windower(8000, 1.0, 0.5, [4000, 16_000])
    windower = Windower(16_000, 1.0, 0.5, [16_000])
    with pytest.raises(SourceError, match=r"8000 Hz.*16000 Hz"):
        windower.push(blocks(noise(800), 8000, [])[0], 0)


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(SourceError, match=r"channel 2 wanted .* 1 channel"):
        Windower(8000, 1.0, 0.5, []).push(blocks(noise(800), 8000, [])[0], 2)


def test_nan_stays_in_its_own_native_window_and_out_of_the_resampled_ones() -> None:
    x = noise(48_000)
    x[1000:1100] = np.nan
    x[1200] = np.float32(3e38)
    found = windows(Windower(48_000, 0.25, 0.25, [16_000]), blocks(x, 48_000, [4800] * 10))
    assert [bool(np.isnan(w.samples).any()) for w in found] == [True, False, False, False]
    assert all(np.abs(w.resampled[16_000]).max() < 1 for w in found)


def test_memory_stays_bounded_and_indices_count_on() -> None:
    windower = Windower(16_000, 1.0, 0.5, [8000])
    x = noise(1600)
    total = 0
    for k in range(600):
        total += len(windower.push(Block(x[:, None], 16_000, 1600 * k, 0.1 * k, 0.1 * k), 0))
    segment = windower._segment
    assert segment is not None
    assert total == 118
    assert segment._native.end - segment._native.start < 2 * 16_000
    assert len(segment._blocks) < 25


RATES = [(48_000, 16_000), (44_100, 16_000), (22_050, 16_000), (16_000, 16_000), (8_000, 16_000), (8_001, 4_000)]


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9000), max_size=40),
    rates=st.sampled_from(RATES),
    hop_s=st.sampled_from([0.5, 0.7]),
    spare=st.integers(0, 5000),
)
def test_a_window_can_be_made_again_from_the_sound_around_it(
    sizes: list[int], rates: tuple[int, int], hop_s: float, spare: int
) -> None:
    native, wanted = rates
    x = noise(native * 13 + 17)
    x[native] = np.nan
    x[2 * native] = 1e30
    windower = Windower(native, 1.0, hop_s, {wanted: min(native, wanted)})
    found = windows(windower, blocks(x, native, sizes))
    assert windower.received == len(x)
    for window in found:
        position = window.position
        begins = max(0, position.segment - round(reach_s(native, [wanted]) * native) - spare)
        again = Excerpt(x[begins:], native, begins, ended=True).window(position.number, 1.0, hop_s, [wanted])
        assert again is not None
        np.testing.assert_array_equal(again.samples, window.samples)
        np.testing.assert_array_equal(again.resampled[wanted], window.resampled[wanted])
        ends = position.segment + native * 2
        if ends < len(x):
            cut = Excerpt(x[begins:ends], native, begins, ended=False).window(position.number, 1.0, hop_s, [wanted])
            assert cut is not None
            np.testing.assert_array_equal(cut.resampled[wanted], window.resampled[wanted])


def test_what_an_excerpt_lacks_is_not_made_up() -> None:
    native, x = 44_100, noise(44_100 * 12)
    window = windows(Windower(native, 1.0, 0.5, [16_000]), blocks(x, native, []))[19]  # from 9.5 s on
    position = window.position

    def again(begins: int, ends: int) -> Window | None:
        return Excerpt(x[begins:ends], native, begins, ended=False).window(position.number, 1.0, 0.5, [16_000])

    end = position.segment + native
    assert again(round(4.9 * native), len(x)) is not None  # its resampler began there
    assert again(round(4.9 * native) + 1, len(x)) is None
    assert again(0, end) is None  # the filter looks a little ahead
    assert again(0, end - 1) is None
    assert again(position.segment + 1, len(x)) is None


@pytest.mark.parametrize(("native", "wanted"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000)])
def test_segments_leave_no_seams(native: int, wanted: int) -> None:
    x = noise(native * 21)
    found = windows(Windower(native, 1.0, 1.0, {wanted: native}), blocks(x, native, [native // 10] * 300))
    whole = soxr.resample(x, native, wanted, quality="HQ")
    joined = np.concatenate([w.resampled[wanted] for w in found])
    assert len(joined) == 21 * wanted
    np.testing.assert_allclose(joined, whole[: len(joined)], atol=3e-7)  # -130 dB: the rounding of float32


def test_places_count_on_where_start_frames_begin_anew() -> None:
    windower = Windower(8000, 1.0, 0.5, [4000])
    found = windows(windower, blocks(noise(12_000), 8000, [800] * 20) + blocks(noise(9000), 8000, [800] * 20, gap=True))
    assert [(w.position.received, w.position.segment, w.position.number) for w in found if not w.gap] == [
        (0, 0, 0),
        (4000, 4000, 1),
        (12_000, 0, 0),
    ]
    assert windower.begun == 12_000
