"""Search neighbours, measure retrieval, and find the confusions; may import system."""
