"""What a person has decided about labels, read from files and matched with the data; may import data, system."""
