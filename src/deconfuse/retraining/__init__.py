"""Train heads again; may import unrolling, attribution, training, frozen, data, retrieval, compute, system."""
