"""The engine that compiles a loop with LLVM."""
