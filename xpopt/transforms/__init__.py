"""Transforms: each makes a rule of a rule."""
