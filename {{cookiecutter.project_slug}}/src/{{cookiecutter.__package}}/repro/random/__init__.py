"""Every random number has a key; a sample order has one too."""
