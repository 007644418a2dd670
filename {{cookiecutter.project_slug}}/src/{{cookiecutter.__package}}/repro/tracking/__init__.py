"""Runs reported to MLflow, without the training waiting for it."""
