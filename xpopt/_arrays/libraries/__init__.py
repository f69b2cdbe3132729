"""How array libraries differ: a file for each, imported when the first array of it comes."""
