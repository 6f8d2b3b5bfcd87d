"""The parity report for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(folder: str | Path, result: Mapping[str, Any]) -> None:
    folder = Path(folder)
    windows = ", ".join(f"{count} of {kind}" for kind, count in result["windows"].items())
    table = Table("variant", "output", "largest difference", "cosine >=", "centred cosine, mean", "least", "MB")
    for variant in ("fp32", "int8"):
        for output, row in result.get(variant, {}).items():
            size = (folder / f"encoder.{variant}.onnx").stat().st_size / 1e6
            table.add_row(
                variant,
                output,
                f"{row['largest_difference']:.1e}",
                f"{row['smallest_cosine']:.6f}",
                f"{row['mean_centred_cosine']:.4f}",
                f"{row['smallest_centred_cosine']:.4f}",
                f"{size:.1f}",
            )
    console = Console()
    console.print(f"{folder}: compared with {result['reference']} over windows: {windows}")
    console.print(table)
