"""Reporting runs to MLflow without making the training wait for it."""
