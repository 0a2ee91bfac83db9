"""Judge and mend labels; may import all rooms below."""
