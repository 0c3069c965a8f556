"""Training: recipes, optimiser, augmentation, data, and a loop that can be killed."""
