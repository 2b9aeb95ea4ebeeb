"""Many videos, or long ones, on many processes and machines, by Ray Data.

inputs ─ dataset ─ worker (a Ray actor) ─ child (a process with the model) ─ outcomes
"""
