"""Rank the training samples, the likeliest mislabelled first; may import labels, attribution, retrieval, system."""
