"""What an optimizer is set to and remembers. Knows no engine."""
