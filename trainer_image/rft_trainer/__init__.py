"""The trainer: prepares data, trains with DeepSpeed, checkpoints, evaluates, reports.

Only :mod:`rft_trainer.contract` is shared with the operator, and it needs pydantic alone: importing this
package never imports torch.
"""
