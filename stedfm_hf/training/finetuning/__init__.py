"""Parts of every fine-tuning: the task, its data, network, trainer, summary and card."""
