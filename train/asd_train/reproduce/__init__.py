"""A report, or one of its systems, from recordings to a table: what has to be run, and what came out."""
