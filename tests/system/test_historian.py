"""configs/fleet: the tables on a real PostgreSQL, filled with real messages; Telegraf's keys beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from asd_agent.publish import Messages, payloads
from asd_agent.types import EventKind, State
from store_cases import alarm_event, normal_window

FLEET = Path(__file__).parents[2] / "configs" / "fleet"
SCHEMA = (FLEET / "postgresql.sql").read_text()
MESSAGES = Messages("hall-1", "asd", lambda: True)
TABLES = {"score": payloads.Score, "event": payloads.Event, "health": payloads.Health}
BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
pytestmark = pytest.mark.system


def columns(table: str) -> set[str]:
    (body,) = re.findall(rf"CREATE TABLE IF NOT EXISTS {table} \((.*?)\n\);", SCHEMA, re.DOTALL)
    return set(re.findall(r"^    (\w+)", body, re.MULTILINE))


def plain(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        return all(map(plain, kind.types))
    simple = inspect.StrType | inspect.IntType | inspect.FloatType | inspect.BoolType | inspect.EnumType
    return isinstance(kind, simple | inspect.NoneType | inspect.LiteralType)


@pytest.mark.parametrize("table", TABLES)
def test_telegraf_takes_what_the_table_has(table: str) -> None:
    telegraf = tomllib.loads((FLEET / "telegraf.conf").read_text())
    (consumer,) = telegraf["inputs"]["mqtt_consumer"]
    assert f"asd/+/+/{table}" in consumer["topics"]
    (parser,) = consumer["json_v2"]
    fields = {f.encode_name: f for f in inspect.type_info(TABLES[table]).fields}  # type: ignore[attr-defined]
    taken = set(parser["object"][0]["included_keys"]) & set(fields)
    assert taken | {"time", "agent", "machine"} == columns(table)
    assert all(plain(fields[name].type) for name in taken)


@pytest.fixture
def psql(tmp_path: Path) -> Iterator[list[str]]:
    """The command line of a client of a server of our own."""
    if not BINARIES.exists():
        pytest.skip("needs postgresql (see tests/system/packages.sh)")
    folder = Path(subprocess.check_output([*AS_POSTGRES, "mktemp", "-d"], text=True).strip())
    listen = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = [*AS_POSTGRES, str(BINARIES / "pg_ctl"), "-D", str(folder / "data"), "-s"]
    subprocess.run([*control, "initdb", "-o", "-A trust -U asd --no-sync"], check=True)
    subprocess.run([*control, "-l", str(folder / "log"), "-o", listen, "-w", "start"], check=True)
    try:
        yield [str(BINARIES / "psql"), "-h", str(folder), "-U", "asd", "-v", "ON_ERROR_STOP=1", "-qAt", "postgres"]
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True)
        shutil.rmtree(folder)


@pytest.mark.slow_client
@pytest.mark.timeout(300)
def test_postgresql_takes_every_message_and_answers(psql: list[str]) -> None:
    def run(sql: str) -> list[str]:
        done = subprocess.run(psql, input=sql, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    rng = np.random.default_rng(1)
    dead = msgspec.structs.replace(
        MESSAGES.score("m1", normal_window(3, rng)), state=State.NOT_ASSESSABLE, score=None, level_dbfs=None
    )
    said = [
        *(MESSAGES.score("m1", normal_window(n, rng), baseline="v1", score_limit=4.0) for n in range(3)),
        dead,
        *(MESSAGES.event(alarm_event(name, kind=EventKind.RAISED)) for name in ("e1", "e2", "e1")),
        MESSAGES.health("m1", status="failure", reasons=("silence",), source_available=True, lag_s=0.25),
    ]
    run(SCHEMA)
    run(SCHEMA)  # once more does no harm
    for payload in said:
        table = type(payload).__name__.lower()
        text = payloads.encode(payload).decode().replace("'", "''")
        run(f"INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, '{text}')")
    assert run("SELECT count(*) FROM event; SELECT count(*) FROM event_once;") == ["3", "2"]
    assert run("SELECT sum(windows), sum(not_assessable) FROM score_hourly") == ["4|1"]
    assert run("SELECT count(*) FROM event WHERE time = timestamptz '2026-03-27 12:00Z'") == ["3"]
    assert run("SELECT status, lag_s FROM health") == ["failure|0.25"]
