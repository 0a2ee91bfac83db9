"""Judge and mend labels; may import attribution, training, corrections, data, retrieval, compute, system."""
