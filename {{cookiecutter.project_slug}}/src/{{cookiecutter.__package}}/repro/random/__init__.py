"""Keyed randomness: every random number, and every sample order, is derived from a key."""
