"""AVSBench and data sets in its format: reading, checking, cached embeddings, samples."""
