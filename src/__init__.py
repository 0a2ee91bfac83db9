"""deconfuse: which training samples, and which labels, make an embedding model confuse two classes."""
