"""Running a model: device and precision, loading, frames to mask logits."""
