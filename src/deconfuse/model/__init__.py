"""The backbones, each maps images to features; may import training, system."""
