"""Comparing runs: with each other, with their repetition, with the recorded baseline."""
