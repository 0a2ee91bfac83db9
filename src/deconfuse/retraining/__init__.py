"""Train heads on weighted samples; may import attribution, training, frozen, data, retrieval, compute, system."""
