"""What depends on the framework; nothing outside this folder imports it."""
