"""A graph as source code, one printer for each target."""
