"""Read data sets: files, images, labels, splits, and flipped labels; may import system."""
