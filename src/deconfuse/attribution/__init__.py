"""Score training samples; may import model, training, frozen, data, retrieval, compute, system."""
