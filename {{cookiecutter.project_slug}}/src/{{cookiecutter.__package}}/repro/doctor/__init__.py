"""The reproducibility checklist of `make doctor`."""
