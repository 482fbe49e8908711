"""Fine-tuning of classifiers: training data, loss and metrics, trainer, figures."""
