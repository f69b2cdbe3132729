"""Settings: their ranges, their text, and what an unknown name was meant to be."""
