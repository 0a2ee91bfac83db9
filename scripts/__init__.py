"""Scripts that measure and check the project, run from a checkout: python -m scripts.NAME."""

import sys
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
if SOURCE not in sys.path:  # the checkout's own code, also where only its dependencies are installed
    sys.path.insert(0, SOURCE)
