"""Evaluation on AVSBench: metrics, negative audio, reports."""
