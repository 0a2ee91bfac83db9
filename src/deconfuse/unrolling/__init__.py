"""The head's training as a function of samples' weights; may import attribution, training, data, system."""
