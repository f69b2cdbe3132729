"""What executes a rule."""
