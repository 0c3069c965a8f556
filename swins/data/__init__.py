"""Data sets: a Split of samples, and a file for each layout that people have them in."""
