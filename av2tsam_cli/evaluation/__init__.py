"""AVSBench's scores, and evaluating a model with them."""
