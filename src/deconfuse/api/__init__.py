"""What `import deconfuse` offers to notebooks and scripts, without Hydra; may import all rooms below."""
