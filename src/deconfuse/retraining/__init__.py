"""Train the head on weighted samples; may import attribution, training, data, retrieval, compute, system."""
