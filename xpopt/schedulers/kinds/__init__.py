"""Schedules as values: one file per family, and what is made of them."""
