"""Score each training sample on each explanation; may import training, data, retrieval, compute, system."""
