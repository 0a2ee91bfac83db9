"""Where and how tensors are computed: devices and their memory, compiled inner loops; may import system."""
