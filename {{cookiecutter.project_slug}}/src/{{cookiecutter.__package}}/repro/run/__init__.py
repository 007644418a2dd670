"""One run: its directory, its record, its checkpoints."""
