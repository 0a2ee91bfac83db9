"""Training by samples' weights; may import attribution, training, frozen, data, retrieval, system."""
