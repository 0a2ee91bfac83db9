"""The proxy losses, each returns one value per sample; may import system."""
