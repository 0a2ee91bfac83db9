"""Train the head again on some samples; may import unrolling, attribution, training, data, retrieval, compute, system."""
