"""Files, arrays, processes, signals, errors and progress bars; may import no other room."""
