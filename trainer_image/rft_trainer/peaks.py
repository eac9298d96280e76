"""What a GPU computes at most, for plans and for the share of it that a training uses.

The dense (not sparse) figures of NVIDIA's data sheets, by the name that NVIDIA's feature discovery puts on a node.
"""

from __future__ import annotations

from typing import NamedTuple

TERA = 1_000_000_000_000


class Peak(NamedTuple):
    """Floating point operations per second."""

    bf16: int
    fp32: int


def _peak(*, bf16: int, fp32: int) -> Peak:
    return Peak(bf16=bf16 * TERA, fp32=fp32 * TERA)


PEAKS = {
    "NVIDIA-H100-80GB-HBM3": _peak(bf16=989, fp32=67),
    "NVIDIA-H100-NVL": _peak(bf16=835, fp32=60),
    "NVIDIA-H100-PCIe": _peak(bf16=756, fp32=51),
    "NVIDIA-H200": _peak(bf16=989, fp32=67),
    "NVIDIA-B200": _peak(bf16=2_250, fp32=75),
    "NVIDIA-A100-SXM4-80GB": _peak(bf16=312, fp32=19),
    "NVIDIA-A100-SXM4-40GB": _peak(bf16=312, fp32=19),
    "NVIDIA-A100-80GB-PCIe": _peak(bf16=312, fp32=19),
    "NVIDIA-A100-PCIE-40GB": _peak(bf16=312, fp32=19),
    "NVIDIA-L40S": _peak(bf16=362, fp32=91),
    "NVIDIA-A10G": _peak(bf16=70, fp32=31),
    "NVIDIA-L4": _peak(bf16=121, fp32=30),
}


def peak_of_device(name: str) -> Peak | None:
    """The peak by the name that the driver gives, which is the product's with spaces; None when it is unknown."""
    return PEAKS.get(name.replace(" ", "-"))
