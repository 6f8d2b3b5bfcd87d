"""Decoding, caching, cropping and batching."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.errors import SourceError, UsageError
from asd_train.data import Clip
from asd_train.data.audio import AudioCache, read_audio
from asd_train.data.dataset import Batches, ClipDataset, collate, loader

RATE = 8000


@pytest.fixture
def files(tmp_path):
    """Three 16-bit files of 1.0, 0.5 and 2.0 s; every sample tells its place."""
    paths = []
    for number, seconds in enumerate((1.0, 0.5, 2.0)):
        ramp = (np.arange(round(seconds * RATE)) % 30000 / 32768).astype(np.float32)
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], ramp, RATE, subtype="PCM_16")
    return paths


def dataset(files, seconds=None, limit_gb=0.0, **options):
    return ClipDataset(
        [Clip(f, "m") for f in files], AudioCache(files, RATE, limit_gb=limit_gb), seconds=seconds, **options
    )


@pytest.mark.parametrize("where", ["none", "memory", "some", "disk"])
def test_every_cache_gives_the_same_samples(files, tmp_path, where):
    folder = tmp_path / "cache" if where == "disk" else None
    limit = {"none": 0.0, "memory": 1.0, "some": 2 * 13000 / 1e9, "disk": 0.0}[where]
    cache = AudioCache(files, RATE, folder=folder, limit_gb=limit)
    assert cache.cached == {"none": 0, "memory": 3, "some": 2, "disk": 3}[where]
    for index, file in enumerate(files):
        np.testing.assert_array_equal(cache.read(index), read_audio(file, RATE))
        np.testing.assert_array_equal(cache.read(index, 100, 200), read_audio(file, RATE)[100:200])


def test_disk_cache_is_used_again_until_a_file_changes(files, tmp_path):
    AudioCache(files, RATE, folder=tmp_path / "cache")
    calls = []
    AudioCache(files, RATE, folder=tmp_path / "cache", progress=lambda *_: calls.append(1))
    assert not calls
    soundfile.write(files[0], np.zeros(RATE * 3, np.float32), RATE, subtype="PCM_16")
    again = AudioCache(files, RATE, folder=tmp_path / "cache", progress=lambda *_: calls.append(1))
    assert len(calls) == 3
    assert len(again.read(0)) == 3 * RATE


def test_other_formats_and_rates_are_kept_as_float(tmp_path):
    path = str(tmp_path / "x.wav")
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (4410, 2)).astype(np.float32)
    soundfile.write(path, stereo, 44100, subtype="FLOAT")
    cache = AudioCache([path], 16000, channel=1, limit_gb=1)
    assert cache.lengths.tolist() == [1600]
    np.testing.assert_array_equal(cache.read(0), read_audio(path, 16000, 1))
    assert not np.allclose(cache.read(0), read_audio(path, 16000, 0))
    with pytest.raises(SourceError, match="has 2 channels, channel 2"):
        read_audio(path, 16000, 2)


def test_broken_files_are_named_before_training(files, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF....WAVE")
    with pytest.raises(SourceError, match=r"broken\.wav: cannot be read as audio"):
        AudioCache([*files, str(broken)], RATE)
    with pytest.raises(SourceError, match=r"absent\.wav"):
        AudioCache([str(tmp_path / "absent.wav")], RATE)
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), RATE)
    with pytest.raises(SourceError, match=r"empty\.wav: holds no samples"):
        AudioCache([str(empty)], RATE)


def test_random_crops_depend_on_seed_epoch_and_clip_alone(files):
    one, other = dataset(files, 0.25), dataset(files, 0.25, limit_gb=1.0)
    crops = {epoch: one[2, epoch].waveform for epoch in range(4)}
    for epoch, crop in crops.items():
        assert len(crop) == 2000
        np.testing.assert_array_equal(other[2, epoch].waveform, crop)
    assert len({crop[0] for crop in crops.values()}) > 1
    assert dataset(files, 0.25, seed=5)[2, 0].waveform[0] != crops[0][0]


def test_short_clips_are_repeated_or_padded(files):
    tiled = dataset(files, 1.2, fill="tile")[1, 0]
    clip = read_audio(files[1], RATE)
    np.testing.assert_array_equal(tiled.waveform, np.tile(clip, 3)[:9600])
    assert tiled.valid == 9600
    padded = dataset(files, 1.2, fill="pad")[1, 0]
    np.testing.assert_array_equal(padded.waveform, np.pad(clip, (0, 9600 - 4000)))
    assert padded.valid == 9600  # zeros count as sound, in training as in evaluation
    batch = collate([padded, dataset(files, 1.2, fill="pad", crop="start")[2, 0]])
    assert batch.waveform.shape == (2, 9600)
    assert not batch.padding.any()
    assert batch.row.tolist() == [1, 2]


def test_start_crop_is_the_start(files):
    np.testing.assert_array_equal(dataset(files, 0.25, crop="start")[2, 7].waveform, read_audio(files[2], RATE)[:2000])


def test_wrong_use_is_told(files):
    with pytest.raises(UsageError, match="no clips"):
        dataset([])
    with pytest.raises(ValueError, match="exactly these clips"):
        ClipDataset([Clip("other.wav", "m")], AudioCache(files[:1], RATE))


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=80),
    size=st.integers(1, 9),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
@settings(deadline=None)
def test_an_epoch_holds_every_clip_once(lengths, size, epoch, shuffle):
    batches = Batches(np.array(lengths), size, shuffle=shuffle, seed=1)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    assert sorted(index for batch in found for index, _ in batch) == list(range(len(lengths)))
    assert {e for batch in found for _, e in batch} == {epoch}
    batches.set_epoch(epoch, skip=1)
    assert list(batches) == found[1:]


def test_batches_gather_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 1000, 400)
    spread = [np.ptp(lengths[[i for i, _ in batch]]) for batch in Batches(lengths, 8, seed=2)]
    assert np.mean(spread) < 60  # 8 clips at random spread over about 780
    epochs = Batches(lengths, 8, seed=2)
    first = list(epochs)
    epochs.set_epoch(1)
    assert list(epochs) != first


def test_drop_last_keeps_the_only_batch():
    assert [len(b) for b in Batches(np.ones(20), 8, drop_last=True)] == [8, 8]
    assert [len(b) for b in Batches(np.ones(5), 8, drop_last=True)] == [5]


def test_workers_change_nothing(files):
    data = dataset(files, 0.25)
    batches = Batches(data.lengths, 2, seed=4)
    alone, helped = (list(loader(data, batches, workers)) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.waveform, other.waveform)
        assert torch.equal(one.row, other.row)
