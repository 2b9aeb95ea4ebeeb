"""Scheduling over time: which masks are computed, and motion between those."""
