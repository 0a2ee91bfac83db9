"""What is explained: confusion pairs, groups of them, or mis-similar pairs; may import retrieval, system."""
