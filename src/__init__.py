"""deconfuse: which training samples, and which labels, make an embedding model confuse two classes."""

from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"  # every choice and number
