"""Subcommands of `asd-train`: parse and print here, the work lies in the modules above."""
