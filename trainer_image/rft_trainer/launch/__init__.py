"""``rft-launch``: process 1 of every pod of a run."""
