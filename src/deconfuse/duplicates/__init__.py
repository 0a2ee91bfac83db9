"""Find near-identical pictures; may import data, retrieval, compute, system."""
