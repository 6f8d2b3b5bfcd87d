from __future__ import annotations

from pathlib import Path

import pytest

from asd_agent import config
from asd_agent.errors import ConfigError

GOOD = """
agent: {id: hall-1, state_dir: /tmp/x}
mqtt: {url: "mqtts://broker:8883", username: hall-1, password_file: /run/credentials/mqtt}
machines:
  - id: compressor-1
    source: {kind: microphone, device: "usb-id:0d8c:0014", channel: 0}
    window_s: 10
"""


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    return config.load(path)


def test_defaults(tmp_path):
    machine = load(tmp_path, GOOD).machines[0]
    assert (machine.window_s, machine.hop_s, machine.bundles) == (10, 5, ("default",))
    assert machine.alarm.false_alarms_per_month == 1
    assert isinstance(machine.source, config.MicrophoneSource)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window_s: 10", "windows_s: 10", r"machines\[0\].windows_s: unknown key \(did you mean 'window_s'"),
        ("window_s: 10", "window_s: ten", r"machines\[0\].window_s: .*float"),
        ("window_s: 10", "window_s: 0", r"machines\[0\].window_s: .*>= 1"),
        ("window_s: 10", "hop_s: 20", "hop_s 20 is longer than window_s 10"),
        ("window_s: 10", 'alarm: {window_votes: "7/5"}', r"machines\[0\].alarm: window_votes: '7/5'"),
        ("kind: microphone", "kind: micro", r"machines\[0\].source.kind"),
        ("id: hall-1, ", "", "agent.id: this key is required"),
        ("id: hall-1", "id: hall/1", "agent.id: "),
        ("mqtts://broker:8883", "http://broker", "mqtt.url: "),
        ("mqtts://broker:8883", "mqtt://user:secret@broker", "mqtt.url: "),
        ("machines:", "machines: [", "not valid YAML"),
    ],
)
def test_a_mistake_names_file_and_key_in_one_line(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert str(tmp_path / "agent.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_same_id_twice(tmp_path):
    with pytest.raises(ConfigError, match="'compressor-1' is used twice"):
        load(tmp_path, GOOD + "  - {id: compressor-1, source: {kind: simulated}}\n")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            config.load(path)


def test_channels_of_one_device_share_a_stream():
    left = config.MicrophoneSource(device="usb-path:1-1", channel=0, channels=2)
    right = config.MicrophoneSource(device="usb-path:1-1", channel=1, channels=2)
    other = config.MicrophoneSource(device="usb-path:1-2", channel=1, channels=2)
    assert left.device_key() == right.device_key() != other.device_key()


def test_the_example_is_valid():
    example = Path(__file__).resolve().parents[2] / "configs" / "agent" / "example.yaml"
    assert config.load(example).machines[0].id == "compressor-1"
