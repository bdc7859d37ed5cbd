"""Pure numbers: metrics."""
