"""Parts of the fine-tuning of segmenters: what is fed, what is trained, how it is checked, what is kept of it."""
