"""The command line ``rft``, also installed as ``kubectl-rft``."""
