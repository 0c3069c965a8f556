"""Exports for other programs, each run and compared before it is kept."""
