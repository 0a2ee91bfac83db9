"""The command line, from its words to names, sweeps, processes and tables; may import all rooms below."""
