"""Recommend labels, train with them; may import attribution, training, data, retrieval, compute, system."""
