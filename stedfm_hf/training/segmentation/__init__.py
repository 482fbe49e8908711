"""Fine-tuning of segmenters: training data, trainer and metrics, figures, notes on images."""
