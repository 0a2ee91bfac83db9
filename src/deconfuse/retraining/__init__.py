"""Train heads anew; may import unrolling, attribution, training, frozen, data, retrieval, compute, system."""
