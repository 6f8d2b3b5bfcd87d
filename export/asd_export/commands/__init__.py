"""Subcommands of `asd-export`: parse and print here, the work lies in the modules above."""
