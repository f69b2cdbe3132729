"""Solvers that are asked for points and told values, and the loop around one."""
