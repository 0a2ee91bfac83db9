"""Score training samples on each explanation; may import model, training, frozen, data, retrieval, system."""
