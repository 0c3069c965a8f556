"""Kinds of work, a file each: what `swins.task` says that one has. To add one is to write a file and register it."""
