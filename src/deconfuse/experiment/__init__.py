"""The tables and figures of finished runs, one module each; may import runs, retrieval, system."""
