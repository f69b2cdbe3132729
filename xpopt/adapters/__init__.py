"""Other libraries' ways in: one module for each, over the public API."""
