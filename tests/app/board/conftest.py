"""Documents of a mesh are shared by the tests of the dashboard's tables."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1] / "adapters" / "control")]
