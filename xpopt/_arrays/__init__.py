"""Arrays of any library: which library, what shape and dtype, where they lie, and the trees that hold them."""
