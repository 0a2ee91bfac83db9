"""Train a model, keep its checkpoints, and find them again; may import frozen, data, retrieval, system."""
