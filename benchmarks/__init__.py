"""Benchmarks: one module per area; each prints bar, target, figure, ok and exits 1 on a miss.

Figures of time are ratios measured side by side in one process, or the wall time of a whole command
where a bar names seconds. `--quick` stays under a minute, `--json` is for machines.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The encoders of the demo are built by a recipe.
sys.path.append(str(Path(__file__).parent.parent / "data" / "recipes"))
