"""The report: one self-contained page that tells what a run did, cost and is worth."""
