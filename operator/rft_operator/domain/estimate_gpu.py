"""What a GPU can hold and do, by the name that NVIDIA's feature discovery puts on its node.

Peaks are those of the trainer's table, memory is what the driver reports. Bandwidths are what programs get, not what
links promise: NVLink 4 is taken at 360 GB/s of NCCL's bus bandwidth, about four fifths of its 450; a PCIe 5 link to the
host at 25 GB/s, half of the 47 to 55 measured for one GPU alone (aigatech/vpbenchmarking, 8 x H100), for eight GPUs
share the host's memory; PCIe 4 at half of that. The network of a node is assumed: 400 Gbit/s per GPU for Hopper and
newer, less for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_trainer.peaks import PEAKS

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
MIB = 2**20
GIGA = 1_000_000_000


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


def _gpu(product: str, *, mib: int, peers: int, network: float, host: float) -> GpuShape:
    return GpuShape(
        product=product,
        memory_bytes=mib * MIB,
        bf16_flops=PEAKS[product].bf16,
        fp32_flops=PEAKS[product].fp32,
        peer_bandwidth=peers * GIGA,
        network_bandwidth=int(network * GIGA),
        host_bandwidth=int(host * GIGA),
    )


ASSUMED = _gpu("NVIDIA-H100-80GB-HBM3", mib=81_559, peers=360, network=50, host=25)
"""What is taken where nobody names the GPU."""
GPUS = {
    gpu.product: gpu
    for gpu in (
        ASSUMED,
        _gpu("NVIDIA-H100-NVL", mib=95_830, peers=40, network=25, host=25),
        _gpu("NVIDIA-H100-PCIe", mib=81_559, peers=40, network=25, host=25),
        _gpu("NVIDIA-H200", mib=143_771, peers=360, network=50, host=25),
        _gpu("NVIDIA-B200", mib=183_359, peers=700, network=50, host=25),
        _gpu("NVIDIA-A100-SXM4-80GB", mib=81_920, peers=230, network=12.5, host=12.5),
        _gpu("NVIDIA-A100-SXM4-40GB", mib=40_960, peers=230, network=6.25, host=12.5),
        _gpu("NVIDIA-A100-80GB-PCIe", mib=81_920, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-A100-PCIE-40GB", mib=40_960, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-L40S", mib=46_068, peers=20, network=6.25, host=12.5),
        _gpu("NVIDIA-A10G", mib=23_028, peers=20, network=3, host=12.5),
        _gpu("NVIDIA-L4", mib=23_034, peers=20, network=3, host=12.5),
    )
}
