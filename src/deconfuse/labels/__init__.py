"""Recommend labels and train on corrected ones; may import attribution, training, data, retrieval, system."""
