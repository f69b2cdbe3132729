"""The line searches: a file for each kind, and what they share."""
