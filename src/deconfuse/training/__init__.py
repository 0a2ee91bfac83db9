"""Train a model, keep and find its checkpoints; may import frozen, data, retrieval, compute, system."""
