"""Weights: files that hold them, the names that programs give them, and models made of them."""
