"""The engine that launches CUDA kernels on CuPy arrays."""
