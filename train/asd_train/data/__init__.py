"""Recordings for training and evaluation: challenge layouts, own folders, classes, batches.

    clips = load_clips([DataSource(path="dcase2025t2")])
    train = training_clips(clips)
    classes = ClassMap.build(train, ClassOptions())
    train = classes.keep(train)
    audio = AudioCache([clip.path for clip in train], rate_hz=16000, limit_gb=8)
    dataset = ClipDataset(train, audio, classes.labels(train), seconds=10)
    batches = Batches(dataset.lengths, batch_size=32)
    for batch in loader(dataset, batches, workers=8): ...

torch is imported by asd_train.data.dataset alone, so the rest can be used without it.
"""

from asd_train.data.classes import ClassMap, ClassOptions
from asd_train.data.clip import Clip
from asd_train.data.load import DataSource, load_clips, training_clips

__all__ = ["ClassMap", "ClassOptions", "Clip", "DataSource", "load_clips", "training_clips"]
