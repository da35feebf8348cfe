"""Latent-variable models on the digits."""

from benchmarks.rows.row import Row

__all__ = ["ROWS"]

ROWS: dict[str, Row] = {}
