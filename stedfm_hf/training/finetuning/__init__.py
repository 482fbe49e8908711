"""What the fine-tunings share, whatever the task: arguments, sides, feeding, checks, checkpoints, the folder."""
