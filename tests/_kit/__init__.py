"""What the tests share: the table of all optimizers, their equations, what a walk is compared with."""
