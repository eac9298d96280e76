"""``status.ledger``: the bill itself, from which every sum in status is recomputed.

Invariant: an amount is an exact integer (GPU-seconds x micro-dollars per GPU-hour; 3,600 of it are one micro-dollar).
It may pass 2^53, so it travels as a string of digits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rft_operator.api.base import BigCounter, Counter, StatusModel, Timestamp
from rft_operator.api.texts import text

MAX_LEDGER_ENTRIES = 1_024
MAX_TOTALS = 64
MAX_PRICE_STEPS = 8
"""Changes of a pod's price that are on record ahead of time."""

Amount = Annotated[str, text(32, pattern=r"^[0-9]+$", minimum=1)]


class WasteReason(StrEnum):
    """Why paid GPU time trained and evaluated nothing."""

    PULL = "pull"
    """Bound, and no container has started yet."""
    BACK_OFF = "backOff"
    """Bound, and the kubelet waits because the image or the container cannot be made."""
    GANG_WAIT = "gangWait"
    """This rank runs, and another one does not yet."""
    LOST_WORK = "lostWork"
    """Worked after the last checkpoint of an attempt that ended before its work was done."""
    TERMINATING = "terminating"
    """Asked to stop, and not ended yet."""
    NODE_LOST = "nodeLost"
    """Still charged, but the node does not answer."""


class WasteSeconds(StatusModel):
    """Waste of one pod."""

    reason: WasteReason
    """Why."""
    gpu_seconds: BigCounter
    """GPU-seconds."""


class PriceStep(StatusModel):
    """A change of a pod's price that is on record before it takes effect."""

    since: Timestamp
    """The price holds from here on."""
    micro_usd_per_gpu_hour: BigCounter = Field(alias="microUSDPerGpuHour")
    """Price."""
    price_source: Annotated[str, text(128)]
    """The catalogue's entry."""


class LedgerEntry(StatusModel):
    """One GPU pod that holds or held GPUs; the key is the pod's uid."""

    uid: Annotated[str, text(64, minimum=1)]
    """UID of the pod."""
    pod: Annotated[str, text(253)]
    """Name of the pod."""
    stage: Annotated[str, text(16)]
    """Stage that pays."""
    attempt: Counter
    """Attempt the pod belongs to."""
    node: Annotated[str, text(253)]
    """Node the pod was bound to."""
    gpus: Annotated[int, Field(ge=0, le=2_147_483_647)]
    """GPUs the scheduler reserved."""
    micro_usd_per_gpu_hour: BigCounter = Field(alias="microUSDPerGpuHour")
    """Price: locked at bind, or the newest one if budget.pricePolicy is floating."""
    price_source: Annotated[str, text(128)]
    """spec, or the catalogue's entry."""
    gpu_product: Annotated[str, text(63)] | None = None
    """Label nvidia.com/gpu.product of the node when the pod was bound."""
    capacity_type: Annotated[str, text(63)] | None = None
    """Label karpenter.sh/capacity-type of the node when the pod was bound."""
    start_time: Timestamp
    """PodScheduled became True (apiserver's clock, M3)."""
    start_basis: Annotated[str, text(32)] = "podScheduled"
    """What the start rests on: podScheduled, or created for a pod that was made on its node."""
    priced_from: Timestamp | None = None
    """Since when this price holds, if it changed: everything before is in former or in the totals."""
    announced: Annotated[list[PriceStep], Field(max_length=MAX_PRICE_STEPS)] = Field(default_factory=list)
    """What the price will be if budget.pricePolicy is floating: what is on record here holds from its instant on."""
    end_time: Timestamp | None = None
    """The terminal phase was written (apiserver's clock, M4); absent while open."""
    end_basis: Annotated[str, text(32)] | None = None
    """What the end rests on: phaseWritten, finishedAt, observed, vanished or nodeGone."""
    disputed_since: Timestamp | None = None
    """From here on the charge errs high: the node's last sign of life, or the end of a container reported late."""
    waste: Annotated[list[WasteSeconds], Field(max_length=8)] = Field(default_factory=list)
    """Set when the entry is closed."""


class WasteTotal(StatusModel):
    """Waste of closed entries, folded."""

    reason: WasteReason
    """Why."""
    gpu_seconds: BigCounter
    """GPU-seconds."""
    amount: Amount
    """GPU-seconds x micro-dollars per GPU-hour."""


class LedgerTotal(StatusModel):
    """Closed entries of one stage on one kind of machine, folded."""

    stage: Annotated[str, text(16)]
    """Stage that paid."""
    gpu_product: Annotated[str, text(63)] | None = None
    """Kind of GPU."""
    capacity_type: Annotated[str, text(63)] | None = None
    """spot, on-demand, or whatever the nodes said."""
    gpu_seconds: BigCounter
    """GPU-seconds."""
    amount: Amount
    """GPU-seconds x micro-dollars per GPU-hour, summed over all prices; 3,600 of it are one micro-dollar."""
    estimated_gpu_seconds: BigCounter = 0
    """Share of them whose end had to be estimated."""
    disputed_gpu_seconds: BigCounter = 0
    """Share of them that was charged though the pod may have been gone already."""
    waste: Annotated[list[WasteTotal], Field(max_length=8)] = Field(default_factory=list)
    """Share of them that trained and evaluated nothing."""


class Ledger(StatusModel):
    """The bill: totals + uncounted + former + open pods recomputed from their timestamps."""

    open: Annotated[list[LedgerEntry], Field(max_length=MAX_LEDGER_ENTRIES)] = Field(default_factory=list)
    """Pods that hold GPUs now."""
    uncounted: Annotated[list[LedgerEntry], Field(max_length=MAX_LEDGER_ENTRIES)] = Field(default_factory=list)
    """Closed, but our finalizer may still be on the pod."""
    former: Annotated[list[LedgerEntry], Field(max_length=MAX_LEDGER_ENTRIES)] = Field(default_factory=list)
    """What pods were charged at a former price, until a team budget has seen it and it is folded."""
    totals: Annotated[list[LedgerTotal], Field(max_length=MAX_TOTALS)] = Field(default_factory=list)
    """Closed and folded."""
    folded_until: Timestamp | None = None
    """The latest end of what is folded: up to any instant after it the bill is known to the second."""
