"""Influence methods (functions); may import unrolling, attribution, training, retrieval, compute, system."""
