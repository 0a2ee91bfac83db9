"""A caller's data, model and loss, brought into our own forms; may import all rooms below."""
