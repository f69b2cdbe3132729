"""The engine that runs NumPy on blocks of an array."""
