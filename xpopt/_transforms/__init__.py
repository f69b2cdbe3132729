"""Rules of rules: which transforms an optimizer has, in which order, and one rule made of these and its own."""
