"""Subcommands beside run: draw letters, prepare data, doctor; may import dataset, data, system."""
