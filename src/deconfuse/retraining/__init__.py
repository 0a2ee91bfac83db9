"""Train the head again; may import unrolling, attribution, training, data, retrieval, compute, system."""
