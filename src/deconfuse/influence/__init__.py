"""Influence methods, functions that return scores; may import attribution, retrieval, compute, system."""
