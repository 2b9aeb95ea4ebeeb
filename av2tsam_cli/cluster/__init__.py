"""Process many videos, or long ones, on many machines with Ray Data.

inputs ─ dataset ─ worker (a Ray actor) ─ child (a process with the model) ─ outcomes
"""
