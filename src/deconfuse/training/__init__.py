"""Train a model, keep its checkpoints, and find them again; may import data, retrieval, system."""
