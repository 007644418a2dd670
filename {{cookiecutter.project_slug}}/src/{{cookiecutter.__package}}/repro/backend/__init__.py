"""Everything that depends on the framework, which nothing outside this folder imports."""
