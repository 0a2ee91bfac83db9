"""Train the head on other samples; may import all rooms below."""
