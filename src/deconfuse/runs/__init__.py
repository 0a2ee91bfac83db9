"""Write a run's results, and read and compare finished runs; may import all rooms below."""
