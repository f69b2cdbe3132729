"""Adapters to other libraries: one module for each, over the public API."""
