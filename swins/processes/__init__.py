"""Processes of their own for what must not run in ours: kept between requests, each of which a fork answers."""
