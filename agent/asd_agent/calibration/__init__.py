"""From normal windows to a baseline: gathering, fitting, the report, and what a person changes afterwards."""
