"""Decisions of a person about labels, read from files and matched with data; may import data, system."""
