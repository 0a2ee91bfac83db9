"""deconfuse: which training samples, and which labels, make an embedding model confuse two classes."""

from pathlib import Path

__version__ = "0.1.0"

HERE = Path(__file__).resolve().parent
# Every choice and number: in a wheel beside the code, in a checkout at the top of the repository.
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"
