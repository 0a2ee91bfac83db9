"""Follow a run in a CSV file or in Weights & Biases; may import runs, data, retrieval, system."""
