"""The Evaluate stage: the trained model and the base model answer the same questions under the same protocol."""
