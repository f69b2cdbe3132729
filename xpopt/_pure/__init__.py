"""The pure form of an optimizer: a step as a function of all that it reads, for libraries that trace functions."""
