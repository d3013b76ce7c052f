"""Splits of one's own data by area, so that no split shows what another one holds."""

from cvmh.datasets.blocks.plan import SplitPlan, plan_split
from cvmh.datasets.blocks.writing import check_target, open_unsplit, write_split

__all__ = ["SplitPlan", "check_target", "open_unsplit", "plan_split", "write_split"]
