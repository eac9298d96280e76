"""The Train stage: one process a GPU, our own loop on DeepSpeed's engine."""
