"""Arrays that lie in chunks: a task for each, which runs an engine of the host where the chunk is."""
