"""Benchmarks: one module per area; each prints bar, target, figure, ok and exits 1 on a miss.

Figures of time are ratios measured side by side in one process, or the wall time of a whole command
where a bar names seconds. `--quick` stays under a minute, `--json` is for machines.
"""
