"""asd-train data against a local server that speaks Zenodo's interface, well or badly."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from asd_train import cli
from asd_train.download.records import RECORDS


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    return out.getvalue()


class Zenodo:
    """Serves `files` (record -> name -> bytes) and counts what is asked for."""

    def __init__(self) -> None:
        self.files: dict[int, dict[str, bytes]] = {}
        self.checksums: dict[str, str] = {}
        self.cut: dict[str, int] = {}  # name -> bytes after which the connection ends, once
        self.sent: list[tuple[str, int]] = []  # (name, first byte)
        zenodo = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/api/records/") and self.path.count("/") == 3:
                    zenodo.describe(self, int(self.path.rsplit("/", 1)[1]))
                else:
                    zenodo.send(self, self.path.rsplit("/", 1)[1])

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def describe(self, handler: BaseHTTPRequestHandler, record: int) -> None:
        if record not in self.files:
            handler.send_error(404)
            return
        listed = [
            {
                "key": name,
                "size": len(data),
                "checksum": self.checksums.get(name, f"md5:{hashlib.md5(data).hexdigest()}"),
                "links": {"self": f"{self.url}/files/{record}/{name}"},
                "other": 1,
            }
            for name, data in self.files[record].items()
        ]
        self.answer(handler, 200, json.dumps({"id": record, "files": listed}).encode())

    def send(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        data = next(files[name] for files in self.files.values() if name in files)
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.sent.append((name, start))
        self.answer(handler, 206 if start else 200, data[start:], self.cut.pop(name, None))

    @staticmethod
    def answer(handler: BaseHTTPRequestHandler, status: int, data: bytes, cut: int | None = None) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:cut])


@pytest.fixture
def zenodo() -> Iterator[Zenodo]:
    server = Zenodo()
    dev, train, test = (RECORDS["dcase2025"][part] for part in ("dev", "train", "test"))
    sound = bytes(range(256)) * 400
    server.files = {
        dev: {
            "dev_fan.zip": archive({"fan/train/section_00_source_train_normal_0000_m-n_X.wav": sound}),
            "dev_valve.zip": archive({"valve/train/section_00_source_train_normal_0000_noAttribute.wav": sound}),
            "README.md": b"no archive",
        },
        train: {"eval_data_ToyPet_train.zip": archive({"ToyPet/train/section_00_source_train_normal_0000.wav": sound})},
        test: {"eval_data_ToyPet_test.zip": archive({"ToyPet/test/section_00_0000.wav": sound})},
    }
    yield server
    server.server.shutdown()
    server.server.server_close()


def run(zenodo: Zenodo, out: Path, *more: str, action: str = "fetch") -> int:
    return cli.main(["data", action, "dcase2025", "-o", str(out), "--host", zenodo.url, *more])


def test_a_release_lands_where_configurations_look(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(zenodo, tmp_path) == 0
    release = tmp_path / "dcase2025t2"
    assert (release / "dev_data/raw/fan/train/section_00_source_train_normal_0000_m-n_X.wav").stat().st_size == 102_400
    assert (release / "eval_data/raw/ToyPet/test/section_00_0000.wav").is_file()
    assert (release / "eval_data/raw/ToyPet/train").is_dir()
    assert not list(release.rglob("*.zip")) + list(release.rglob("*.part"))
    assert "4 archives fetched, 0 were there" in capsys.readouterr().out
    sent = len(zenodo.sent)
    assert run(zenodo, tmp_path) == 0
    assert len(zenodo.sent) == sent  # nothing is fetched twice
    assert run(zenodo, tmp_path, "--deep", action="check") == 0
    assert cli.main(["data", "list", "-o", str(tmp_path)]) == 0
    assert "4 archives in" in capsys.readouterr().out


def test_a_cut_connection_is_resumed_where_it_ended(zenodo: Zenodo, tmp_path: Path) -> None:
    zenodo.cut = {"dev_fan.zip": 60_000}
    assert run(zenodo, tmp_path, "--machine", "fan", "--part", "dev") == 0
    assert zenodo.sent == [("dev_fan.zip", 0), ("dev_fan.zip", 60_000)]


def test_a_part_of_an_earlier_run_is_gone_on_with(zenodo: Zenodo, tmp_path: Path) -> None:
    (tmp_path / "dcase2025t2/.fetch").mkdir(parents=True)
    data = zenodo.files[RECORDS["dcase2025"]["dev"]]["dev_fan.zip"]
    (tmp_path / "dcase2025t2/.fetch/dev_fan.zip.part").write_bytes(data[:1000])
    assert run(zenodo, tmp_path, "--machine", "fan", "--part", "dev") == 0
    assert zenodo.sent == [("dev_fan.zip", 1000)]


def test_a_damaged_part_is_fetched_anew(zenodo: Zenodo, tmp_path: Path) -> None:
    (tmp_path / "dcase2025t2/.fetch").mkdir(parents=True)
    data = zenodo.files[RECORDS["dcase2025"]["dev"]]["dev_fan.zip"]
    (tmp_path / "dcase2025t2/.fetch/dev_fan.zip.part").write_bytes(b"x" * len(data))
    assert run(zenodo, tmp_path, "--machine", "fan", "--part", "dev") == 0
    assert zenodo.sent == [("dev_fan.zip", 0)]
    assert run(zenodo, tmp_path, "--deep", action="check") == 0


def test_a_wrong_checksum_is_told(zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zenodo.checksums = {"dev_fan.zip": "md5:" + "0" * 32}
    assert run(zenodo, tmp_path, "--machine", "fan", "--part", "dev") == 1
    assert "dev_fan.zip: does not have its checksum" in capsys.readouterr().err
    assert not (tmp_path / "dcase2025t2/dev_data").exists()


def test_a_name_that_leads_elsewhere_is_refused(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zenodo.files[RECORDS["dcase2025"]["dev"]] = {"dev_fan.zip": archive({"../../../evil.wav": b"x"})}
    assert run(zenodo, tmp_path / "data", "--part", "dev") == 1
    assert "holds a file outside of its folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil.wav"))


def test_check_names_what_is_missing_or_damaged(
    zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(zenodo, tmp_path) == 0
    (tmp_path / "dcase2025t2/eval_data/raw/ToyPet/test/section_00_0000.wav").unlink()
    fan = next((tmp_path / "dcase2025t2/dev_data/raw/fan/train").iterdir())
    fan.write_bytes(b"y" * 102_400)
    assert run(zenodo, tmp_path, action="check") == 1
    assert "ToyPet/test/section_00_0000.wav: missing" in capsys.readouterr().out
    assert run(zenodo, tmp_path, "--deep", action="check") == 1
    assert "damaged (its checksum differs)" in capsys.readouterr().out
    assert run(zenodo, tmp_path) == 0  # fetches what is missing, not what only --deep sees
    assert run(zenodo, tmp_path, action="check") == 0


def test_no_internet_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "fetch", "dcase2026", "-o", str(tmp_path), "--host", "http://127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert "http://127.0.0.1:9 cannot be reached" in error
    assert "fetch where there is internet" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "needs a name"),
        (["fetch", "dcase1999"], "unknown data 'dcase1999': use one of dcase2020"),
        (["check", "dcase2025"], "nothing was fetched here"),
        (["fetch", "dcase2025", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", *arguments, "-o", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_machine_that_is_not_there(zenodo: Zenodo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(zenodo, tmp_path, "--machine", "tractor") == 2
    assert "no archive of tractor; there are dev_fan.zip" in capsys.readouterr().err


def test_releases_of_all_years_are_known() -> None:
    assert list(RECORDS) == [f"dcase{year}" for year in range(2020, 2027)]
    assert RECORDS["dcase2026"] == {"dev": 19336329, "train": 20151556, "test": 20437238}
