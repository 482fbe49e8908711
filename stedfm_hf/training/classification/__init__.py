"""Parts of the fine-tuning of classifiers: training data, loss and metrics, trainer, figures."""
