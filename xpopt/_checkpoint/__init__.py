"""What a checkpoint is, on disk and in memory; knows no optimizer."""
