"""Runs compared: with another, with themselves, with the recorded baseline."""
