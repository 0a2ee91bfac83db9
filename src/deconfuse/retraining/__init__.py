"""Train the head once more; may import unrolling, attribution, training, data, retrieval, compute, system."""
