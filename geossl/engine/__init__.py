"""Training: the loop, its checkpoints, processes, logs and health checks, and model folders."""
