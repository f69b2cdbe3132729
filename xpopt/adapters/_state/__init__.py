"""What `state` is made of: a table of each library, and what reads and writes it."""
