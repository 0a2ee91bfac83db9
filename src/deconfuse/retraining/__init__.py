"""Train heads on some samples; may import attribution, training, frozen, data, retrieval, compute, system."""
