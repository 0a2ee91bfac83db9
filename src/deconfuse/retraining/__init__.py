"""Train the head again on weighted samples; may import attribution, training, retrieval, system."""
