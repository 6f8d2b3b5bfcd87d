"""Which commands a report or a system needs, in their order: pre-training, systems, evaluations, ensembles.

OUT/seed-0/configs/b_lbeats.yaml     the configuration with the paths of this reproduction
OUT/seed-0/runs/b_lbeats/            what asd-train fit or pretrain writes
OUT/seed-0/results/b_lbeats/         what asd-train evaluate or ensemble writes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asd_agent.errors import UsageError

REPORTS = ("A", "B", "C", "D", "E")
_SNAPSHOT = re.compile(r"(?P<name>.+)_(?P<step>\d+)$")  # results/a_eat_lora_15000: of a snapshot

Content = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One command of asd-train; done where `product` exists."""

    system: str
    arguments: tuple[str, ...]
    product: Path


@dataclass(frozen=True)
class Options:
    data: Path
    out: Path
    checkpoints: Path
    tiny: bool
    bootstrap: int
    device: str


@dataclass(frozen=True)
class Shelf:
    """The configurations by name."""

    contents: Mapping[str, Content]

    @classmethod
    def read(cls, folder: Path) -> Shelf:
        """Raises UsageError where the folder holds none."""
        found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}
        if not found:
            raise UsageError(f"{folder}: no configurations in it; name their folder with --configs")
        return cls(found)

    def wanted(self, name: str) -> list[str]:
        """The systems of a report, or the one system; raises UsageError for an unknown name."""
        if name.upper() in REPORTS:
            return [key for key in self.contents if key.startswith(f"{name.lower()}_")]
        if name in self.contents:
            return [name]
        raise UsageError(f"{name}: neither a report ({', '.join(REPORTS)}) nor one of {', '.join(self.contents)}")

    def needs(self, name: str) -> list[str]:
        """Names of the systems that this one is made from."""
        content = self.contents[name]
        folders = [member["scores"] for member in content.get("members", ())]
        folders += list(content.get("replace", {}).values())
        branches = content.get("model", {}).get("branches", ())
        folders += [b["checkpoint"] for b in branches if str(b.get("checkpoint", "")).startswith("runs/")]
        return [self._maker(folder) for folder in folders]

    def order(self, names: list[str]) -> list[str]:
        """These and all that they need, what is needed first."""
        found: list[str] = []

        def add(name: str) -> None:
            for other in self.needs(name):
                add(other)
            if name not in found:
                found.append(name)

        for name in names:
            add(name)
        return found

    def snapshots(self, names: list[str]) -> list[tuple[str, int]]:
        """(system, step) of the snapshots whose scores some ensemble wants."""
        members = [m["scores"] for name in names for m in self.contents[name].get("members", ())]
        found = [_SNAPSHOT.match(folder.split("/")[1]) for folder in members]
        return sorted({(m["name"], int(m["step"])) for m in found if m and m["name"] in self.contents})

    def _maker(self, folder: str) -> str:
        name = folder.split("/")[1]
        snapshot = _SNAPSHOT.match(name)
        return snapshot["name"] if name not in self.contents and snapshot else name


def steps_of(shelf: Shelf, names: list[str], seed: int, options: Options) -> Iterator[Step]:
    """Every command, in the order in which they can run; writes the configurations that they read."""
    place = options.out / f"seed-{seed}"
    order = shelf.order(names)
    snapshots = shelf.snapshots(order)
    for name in order:
        content = _placed(shelf.contents[name], place, options)
        config = place / "configs" / f"{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        run, results = place / "runs" / name, place / "results" / name
        tiny = ("--tiny",) if options.tiny else ()
        own_seed = ("--set", f"train.seed={seed}") if "train" in content else ()
        common = ("--bootstrap", str(options.bootstrap))
        scored = results / "results.json"
        if "members" in content:
            yield Step(name, ("ensemble", str(config), *common, "-o", str(results)), scored)
        elif "masking" in content:
            fit = ("pretrain", str(config), *tiny, *own_seed, "--resume", "-o", str(run))
            yield Step(name, fit, run / "encoder" / "config.json")
        elif "model" in content:
            fit = ("fit", str(config), *tiny, *own_seed, "--resume", "-o", str(run))
            yield Step(name, fit, run / "system" / "system.json")
            data = ("--data", content["data"][0]["path"], "--device", options.device)
            yield Step(name, ("evaluate", str(run), *data, *common, "-o", str(results)), scored)
            for _, step in (pair for pair in snapshots if pair[0] == name):
                yield _of_snapshot(name, run, results, step, (*data, *common), options.tiny)
        else:
            yield Step(name, ("evaluate", str(config), *common, "-o", str(results)), scored)


def _of_snapshot(name: str, run: Path, results: Path, step: int, more: tuple[str, ...], tiny: bool) -> Step:
    folder = run / "system" if tiny else run / "snapshots" / f"step-{step:08d}"  # a tiny run ends before
    results = results.with_name(f"{name}_{step}")
    return Step(f"{name}_{step}", ("evaluate", str(folder), *more, "-o", str(results)), results / "results.json")


def _placed(content: Content, place: Path, options: Options) -> Content:
    """The configuration with the recordings, runs and results of this reproduction."""
    moved = dict(content)
    if "data" in content:
        moved["data"] = _sources(content["data"], options.data)
    if "members" in content:
        moved["members"] = [{**member, "scores": str(place / member["scores"])} for member in content["members"]]
        moved["replace"] = {key: str(place / folder) for key, folder in content.get("replace", {}).items()}
    if "checkpoint" in content:
        moved["checkpoint"] = _checkpoint(content["checkpoint"], place, options)
    if "model" in content:
        branches = [
            {**b, "checkpoint": _checkpoint(b["checkpoint"], place, options)} if "checkpoint" in b else b
            for b in content["model"]["branches"]
        ]
        moved["model"] = {**content["model"], "branches": branches}
    if "autoencoder" in content and options.tiny:
        moved["autoencoder"] = {**content["autoencoder"], "epochs": 1}
    return moved


def _sources(sources: list[Content], data: Path) -> list[Content]:
    """Those of the releases that lie in `data`; `data` itself where none does."""
    found = [{**s, "path": str(data / Path(s["path"]).name)} for s in sources if (data / Path(s["path"]).name).is_dir()]
    return found or [{"path": str(data)}]


def _checkpoint(path: str, place: Path, options: Options) -> str:
    if path.startswith("runs/"):
        return str(place / path)
    return str(options.checkpoints / Path(path).name)
