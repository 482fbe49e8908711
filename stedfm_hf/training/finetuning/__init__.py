"""What the fine-tunings share, whatever the task: arguments, splits, feeding, checks, checkpoints, the folder."""
