"""A challenge that never was: machines, domains, faults and files in the layout of DCASE 2025 Task 2.

`plan` draws the machines, `sound` is what they sound like, `write` writes them out.
"""

from asd_train.synth.plan import Counts, Machine, draw_machines
from asd_train.synth.write import write_challenge

__all__ = ["Counts", "Machine", "draw_machines", "write_challenge"]
