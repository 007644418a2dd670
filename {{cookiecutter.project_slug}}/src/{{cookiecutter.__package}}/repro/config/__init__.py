"""The configuration: its base classes, and how files and overrides are read."""
