"""Pages to look at and to review in; may import runs, labels, corrections, data, retrieval, system."""
