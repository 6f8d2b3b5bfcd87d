"""Names, tables and folders of the challenge's years, and folders of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_agent.errors import UsageError
from asd_train.data import DataSource, load_clips, training_clips
from asd_train.data.names import parse_name
from asd_train.data.tables import read_attributes, read_truth


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def load(root: Path, **options):
    return load_clips([DataSource(path=str(root), **options)])


@pytest.mark.parametrize(
    ("file", "section", "domain", "label", "attributes", "kind"),
    [
        ("normal_id_06_00000012.wav", "06", "", "normal", (), None),
        ("id_01_00000000.wav", "01", "", "", (), None),
        ("section_03_source_test_0000.wav", "03", "source", "", (), None),
        ("section_00_0123.wav", "00", "", "", (), None),
        (
            "fan/test/section_00_source_test_anomaly_0022_m-n_W.wav",
            "00",
            "source",
            "anomaly",
            (("m-n", "W"),),
            None,
        ),
        (
            "section_00_target_train_normal_0990_vel_490_ac_0.05",  # tables leave the suffix out
            "00",
            "target",
            "normal",
            (("vel", "490"), ("ac", "0.05")),
            None,
        ),
        ("section_02_source_train_normal_1490_noAttribute.wav", "02", "source", "normal", (), None),
        (
            "section_00_source_train_normal_0001_mic_imp34dt05_mic_pos_A_grind_100_bkg_A.wav",
            "00",
            "source",
            "normal",
            (("attributes", "mic_imp34dt05_mic_pos_A_grind_100_bkg_A"),),  # a key with "_": the CSV knows better
            None,
        ),
        ("section_00_machine_source_0000_noAttribute.wav", "00", "source", "", (), "clean"),
        ("section_00_noise_supplemental_normal_0000.wav", "00", "", "normal", (), "noise"),
        ("section_00_source_supplemental_normal_0003_clean.wav", "00", "source", "normal", None, "clean"),
    ],
)
def test_names_of_all_years(file, section, domain, label, attributes, kind):
    name = parse_name(file)
    assert name is not None
    assert (name.section, name.domain, name.label, name.kind) == (section, domain, label, kind)
    if attributes is not None:
        assert name.attributes == attributes


@pytest.mark.parametrize("file", ["recording.wav", "section_xx_0000.wav", "id_1.wav", "section_00_.wav"])
def test_other_names_are_none(file):
    assert parse_name(file) is None


def test_layout_of_2020(tmp_path):
    touch(tmp_path, "fan/train/normal_id_00_00000000.wav", "fan/test/anomaly_id_00_00000000.wav")
    touch(tmp_path, "fan/test/normal_id_02_00000001.wav", "fan/test/id_01_00000000.wav")
    clips = load(tmp_path)
    assert {c.year for c in clips} == {2020}  # by the names, as no folder says it
    assert [(c.section, c.split, c.label, c.domain) for c in clips] == [
        ("00", "train", "normal", "source"),
        ("00", "test", "anomaly", "source"),
        ("01", "test", "", "source"),
        ("02", "test", "normal", "source"),
    ]


def test_layout_of_2021_with_a_folder_a_domain(tmp_path):
    touch(tmp_path, "dev/gearbox/train/section_00_target_train_normal_0000_strength_1_ambient.wav")
    touch(tmp_path, "dev/gearbox/source_test/section_03_0000.wav")
    touch(tmp_path, "dev/gearbox/target_test/section_00_target_test_anomaly_0000.wav", "dev/gearbox/readme.txt")
    train, first, second = load(tmp_path)
    assert (train.year, train.domain) == (2021, "target")
    assert (first.domain, first.label, second.domain, second.label) == ("source", "", "target", "anomaly")


def test_attributes_come_from_the_table_by_full_or_short_name(tmp_path):
    touch(tmp_path, "saw/train/section_00_source_train_normal_0001_mic_a_mic_pos_B.wav")
    touch(tmp_path, "saw/test/section_00_source_test_normal_0002_mic_a_mic_pos_B.wav")
    (tmp_path / "saw/attributes_00.csv").write_text(
        "file_name,d1p,d1v,d2p,d2v\n"
        "saw/train/section_00_source_train_normal_0001_mic_a_mic_pos_B.wav,mic,a,mic_pos,B\n"
        "section_00_source_test_normal_0002,mic,a,,\n"
    )
    train, test = load(tmp_path)
    assert train.attributes == (("mic", "a"), ("mic_pos", "B"))
    assert test.attributes == (("mic", "a"),)


def test_hidden_attributes_stay_hidden(tmp_path):
    touch(tmp_path, "Polisher/train/section_00_source_train_normal_0001_noAttribute.wav")
    (tmp_path / "Polisher/attributes_00.csv").write_text(
        "file_name\nsection_00_source_train_normal_0001_noAttribute.wav\n"
    )
    assert load(tmp_path)[0].attributes == ()


def test_table_without_header_is_named(tmp_path):
    (tmp_path / "attributes_00.csv").write_text("x.wav,a,b\n")
    with pytest.raises(UsageError, match=r"attributes_00\.csv: the first line must be a header"):
        read_attributes(tmp_path / "attributes_00.csv")


def test_supplemental_by_token_or_by_configuration(tmp_path):
    touch(tmp_path, "fan/train/section_00_source_train_normal_0000.wav", "fan/supplemental/section_00_extra_0000.wav")
    with pytest.raises(UsageError, match=r"neither noise nor machine/clean.*fan: noise"):
        load(tmp_path)
    clips = load(tmp_path, supplemental={"fan": "noise"})
    assert [(c.split, c.kind, c.label) for c in clips] == [
        ("train", "clip", "normal"),
        ("supplemental", "noise", "normal"),
    ]


def test_truth_as_the_baselines_list(tmp_path):
    touch(tmp_path, "RoboticArm/test/section_00_0000.wav", "RoboticArm/test/section_00_0001.wav")
    touch(tmp_path, "RoboticArm/train/section_00_source_train_normal_0000.wav")
    truth = tmp_path / "eval_data_list_2024.csv"
    truth.write_text(
        "RoboticArm\n"
        "section_00_0000.wav,section_00_target_anomaly_0003_bkg_A.wav\n"  # 2024: without "test_"
        "section_00_0001.wav,section_00_source_test_normal_0003_noAttribute.wav\n"
        "Scanner\nsection_00_0000.wav,section_00_source_test_normal_0001.wav\n"
    )
    _, first, second = load(tmp_path, ground_truth=str(truth))
    assert (first.domain, first.label, first.attributes) == ("target", "anomaly", (("bkg", "A"),))
    assert (second.domain, second.label, second.attributes) == ("source", "normal", ())


def test_truth_as_the_evaluators_folder(tmp_path):
    for kind, value in (("data", "1"), ("domain", "1")):
        folder = tmp_path / f"ground_truth_{kind}"
        folder.mkdir()
        (folder / "ground_truth_grinder_section_00_test.csv").write_text(f"section_00_0000.wav,{value}\n")
    found = read_truth(tmp_path)["grinder"]["section_00_0000"]
    assert (found.label, found.domain) == ("anomaly", "target")


def test_truth_that_is_none(tmp_path):
    (tmp_path / "list.csv").write_text("fan\nsection_00_0000.wav,broken\n")
    with pytest.raises(UsageError, match=r"section_00_0000.wav: 'broken' is neither"):
        read_truth(tmp_path / "list.csv")
    with pytest.raises(UsageError, match="not found"):
        read_truth(tmp_path / "absent.csv")


def test_years_mix_and_do_not_overlap(tmp_path):
    for year in (2023, 2024):
        touch(tmp_path, f"dcase{year}t2/dev_data/raw/fan/train/section_00_source_train_normal_0000_m-n_W.wav")
    clips = load(tmp_path)
    assert [c.group for c in clips] == [(2023, "fan", "00"), (2024, "fan", "00")]
    with pytest.raises(UsageError, match="read twice"):
        load_clips([DataSource(path=str(tmp_path)), DataSource(path=str(tmp_path / "dcase2023t2"))])


def test_own_machines_in_folders(tmp_path):
    touch(tmp_path, "press/monday/a.wav", "press/b.FLAC", "press/._b.wav", "lathe/notes.txt", "lathe/c.wav")
    clips = load(tmp_path)
    assert [(c.machine, c.file, c.split, c.label, c.year) for c in clips] == [
        ("lathe", "c.wav", "train", "normal", 0),
        ("press", "b.FLAC", "train", "normal", 0),
        ("press", "a.wav", "train", "normal", 0),
    ]


def test_own_machine_flat_with_a_table(tmp_path):
    root = tmp_path / "press"
    touch(root, "a.wav", "b.wav", "day/c.wav")
    (root / "attributes.csv").write_text(
        "file_name,load,domain,split,label,kind\na.wav,high,target,,,\nb.wav,,,test,anomaly,\nday/c.wav,,,,,noise\n"
    )
    clips = {c.file: c for c in load(root, layout="folder")}
    assert clips["a.wav"].attributes == (("load", "high"),)
    assert (clips["a.wav"].domain, clips["a.wav"].machine) == ("target", "press")
    assert (clips["b.wav"].split, clips["b.wav"].label) == ("test", "anomaly")
    assert clips["c.wav"].kind == "noise"


def test_own_folders_say_what_is_no_normal_training_clip(tmp_path):
    touch(tmp_path, "a.wav", "test/b.wav", "test/anomaly/c.wav", "target/d.wav", "noise/e.wav", "day1/f.wav")
    (tmp_path / "attributes.csv").write_text("file_name,label,load\nb.wav,,high\nf.wav,anomaly,\n")
    clips = {c.file[0]: c for c in load(tmp_path, layout="folder")}
    assert {c.machine for name, c in clips.items() if name != "f"} == {tmp_path.name}
    assert clips["f"].machine == "day1"  # a folder of no known meaning is a machine
    assert [(c.split, c.label, c.domain, c.kind) for _, c in sorted(clips.items())] == [
        ("train", "normal", "source", "clip"),
        ("test", "normal", "source", "clip"),
        ("test", "anomaly", "source", "clip"),
        ("train", "normal", "target", "clip"),
        ("supplemental", "normal", "source", "noise"),
        ("train", "anomaly", "source", "clip"),
    ]
    assert clips["b"].attributes == (("load", "high"),)


def test_own_table_with_a_wrong_word_names_it(tmp_path):
    touch(tmp_path, "press/a.wav")
    (tmp_path / "press/attributes.csv").write_text("file_name,domain\na.wav,tagret\n")
    with pytest.raises(UsageError, match=r"a\.wav: domain is 'tagret', it must be one of source, target"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no WAV or FLAC"),
        ({"layout": "dcase"}, "no folder <machine>/train"),
        ({"machines": ("fan",)}, "no clips of fan"),
    ],
)
def test_nothing_there_is_one_clear_line(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        load(tmp_path, **options)


def test_no_folder_and_nothing_to_learn(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load(tmp_path / "absent")
    touch(tmp_path, "fan/test/section_00_source_test_normal_0000.wav")
    with pytest.raises(UsageError, match="no training clips"):
        training_clips(load(tmp_path))


def test_real_clips_of_2023(shared_dir):
    clips = load(shared_dir / "data" / "dcase2023_samples")
    assert len(clips) == 28
    assert {c.machine for c in clips} == {"ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve"}
    assert {c.year for c in clips} == {2023}
    by_name = {c.file: c for c in clips}
    slider = by_name["section_00_source_test_normal_0027_vel_730_ac_0.11.wav"]
    assert slider.attributes == (("vel", "730"), ("ac", "0.11"))
    assert sum(c.label == "anomaly" for c in clips) == 5
    assert len(training_clips(clips)) == 14
