"""The eager engine: rules as they are written, on the arrays of any library."""
