"""What reproducibility needs, inspected in a checkout."""
