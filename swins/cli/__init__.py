"""The command line, a file for each group of verbs."""

from swins.cli.command_line import main

__all__ = ["main"]
