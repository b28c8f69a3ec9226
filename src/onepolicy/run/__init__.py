"""Floor 1: the outside world. Run directories, checkpoints, metrics, plots, progress, and the doctor."""
