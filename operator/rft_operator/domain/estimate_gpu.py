"""What a GPU can hold and do, by the name that NVIDIA's feature discovery puts on its node.

Peaks are the dense (not sparse) figures of NVIDIA's data sheets, memory is what the driver reports. Bandwidths are what
programs get, not what links promise: NVLink 4 is taken at 360 GB/s of NCCL's bus bandwidth, about four fifths of its
450; a PCIe 5 link to the host at 25 GB/s, half of the 47 to 55 measured for one GPU alone (aigatech/vpbenchmarking, 8 x
H100), for eight GPUs share the host's memory; PCIe 4 at half of that. The network of a node is assumed: 400 Gbit/s per
GPU for Hopper and newer, less for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
MIB = 2**20
GIGA = 1_000_000_000
TERA = 1_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShape:
    """One kind of GPU in its usual machine; all bandwidths in bytes per second and per GPU."""

    product: str
    memory_bytes: int
    bf16_flops: int
    fp32_flops: int
    peer_bandwidth: int
    """Bus bandwidth of collectives within a node."""
    network_bandwidth: int
    """Of one GPU's share of the node's network."""
    host_bandwidth: int
    """To the host's memory while all GPUs of the node copy at once."""


def _gpu(product: str, *, mib: int, bf16: int, fp32: int, peers: int, network: float, host: float) -> GpuShape:
    return GpuShape(
        product=product,
        memory_bytes=mib * MIB,
        bf16_flops=bf16 * TERA,
        fp32_flops=fp32 * TERA,
        peer_bandwidth=peers * GIGA,
        network_bandwidth=int(network * GIGA),
        host_bandwidth=int(host * GIGA),
    )


ASSUMED = _gpu("NVIDIA-H100-80GB-HBM3", mib=81_559, bf16=989, fp32=67, peers=360, network=50, host=25)
"""What is taken where nobody names the GPU."""
GPUS = {
    gpu.product: gpu
    for gpu in (
        ASSUMED,
        _gpu("NVIDIA-H100-NVL", mib=95_830, bf16=835, fp32=60, peers=40, network=25, host=25),
        _gpu("NVIDIA-H100-PCIe", mib=81_559, bf16=756, fp32=51, peers=40, network=25, host=25),
        _gpu("NVIDIA-H200", mib=143_771, bf16=989, fp32=67, peers=360, network=50, host=25),
        _gpu("NVIDIA-B200", mib=183_359, bf16=2_250, fp32=75, peers=700, network=50, host=25),
        _gpu("NVIDIA-A100-SXM4-80GB", mib=81_920, bf16=312, fp32=19, peers=230, network=12.5, host=12.5),
        _gpu("NVIDIA-A100-SXM4-40GB", mib=40_960, bf16=312, fp32=19, peers=230, network=6.25, host=12.5),
        _gpu("NVIDIA-A100-80GB-PCIe", mib=81_920, bf16=312, fp32=19, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-A100-PCIE-40GB", mib=40_960, bf16=312, fp32=19, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-L40S", mib=46_068, bf16=362, fp32=91, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-A10G", mib=23_028, bf16=70, fp32=31, peers=20, network=3, host=12.5),
        _gpu("NVIDIA-L4", mib=23_034, bf16=121, fp32=30, peers=20, network=3, host=12.5),
    )
}
