"""The influence methods, each a function that returns scores; may import attribution, retrieval, system."""
