"""Inner loops in one pass over memory, compiled where that pays; may import system."""
