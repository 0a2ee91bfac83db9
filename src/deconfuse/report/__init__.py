"""Pages to look at; may import runs, labels, corrections, attribution, data, retrieval, system."""
