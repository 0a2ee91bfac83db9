"""The data sets, each a function that returns a split; may import data, system."""
