"""`asd-train`: one module per subcommand, each with `add_parser(subparsers)` and `run(args) -> int`.

`add_parser` imports nothing heavy, so that --help answers at once; `run` imports torch when it needs it.
"""

from __future__ import annotations

# Modules asd_train.commands.<name>
COMMANDS = ("fit", "pretrain", "distil", "embed", "synth", "evaluate", "ensemble", "data")
