"""Tensors in, tensors out: selective scan, its paths, non-causal SSD, and cosine bases."""

from cvmh.ops.aligned_scan import Alignment, aligned_scan
from cvmh.ops.dct import FCANET_TOP16, dct_basis, top_frequencies
from cvmh.ops.nc_ssd import nc_ssd
from cvmh.ops.selective_scan import choose_backend, selective_scan, warm_up
from cvmh.ops.traversal import KeptTables, inverse_table, kept_tables, order_table

__all__ = [
    "FCANET_TOP16",
    "Alignment",
    "KeptTables",
    "aligned_scan",
    "choose_backend",
    "dct_basis",
    "inverse_table",
    "kept_tables",
    "nc_ssd",
    "order_table",
    "selective_scan",
    "top_frequencies",
    "warm_up",
]
