"""Where a head on frozen features starts; may import data, retrieval, system."""
