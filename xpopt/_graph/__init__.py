"""A rule as data: nodes, the tracer that makes them of a rule, and the interpreter that says what they mean."""
