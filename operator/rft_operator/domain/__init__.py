"""The pure core: values and a ``now`` in, values out. No kopf, no kubernetes, no clock, no I/O."""
