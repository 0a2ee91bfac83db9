"""Rank training samples, likeliest mislabelled first; may import labels, attribution, retrieval, system."""
