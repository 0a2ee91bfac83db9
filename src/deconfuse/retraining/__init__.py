"""Train the head again on weighted samples; may import attribution, training, data, retrieval, system."""
