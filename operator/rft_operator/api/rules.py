"""Rules of the resource: the API server refuses a wrong one at once and says what to change.

Invariant: no rule needs a webhook. A rule about two fields holds where one of them is malformed alone: that one has
its own rule, and the user reads one message. Keys are paths in the schema: ``()`` is the whole resource, ``[]`` the
items of a list.
"""

from __future__ import annotations

from rft_operator.api.cel import FORBIDDEN, REQUIRED, Path, Rule, between, is_money, only_hub, uris
from rft_operator.api.evaluation_rules import EVALUATION_RULES
from rft_operator.api.overlay_rules import OVERLAY_RULES
from rft_operator.api.publish_rules import PUBLISH_RULES
from rft_operator.api.spec import Storage

_MICRO = "(has(self.training.microBatchSize) ? self.training.microBatchSize : 1)"
_AT_ONCE = f"(self.resources.nodes * self.resources.gpusPerNode * {_MICRO})"
_LIMIT = "self.spec.budget.limitUSD"
_GPU_LIKE = "key == self.gpuResource || key.contains('gpu') || key.contains('/mig-')"
_SPENT = "oldSelf.status.cost.spentMicroUSD"
_COMPLETE = (
    "has(oldSelf.status) && has(oldSelf.status.conditions) && "
    "oldSelf.status.conditions.exists(each, each.type == 'Complete' && each.status == 'True')"
)
_RESERVES_FOR_NOTHING = "has({0}.spec.budget.evaluationReserveUSD) && !has({0}.spec.evaluation)"


def _fixed(field: str, *, optional: bool = False) -> Rule:
    """A field that gives the run its meaning cannot change once the run has started."""
    started = "has(oldSelf.status) && has(oldSelf.status.startTime)"
    return Rule(
        expression=f"!({started}) || ({_same(field, optional=optional)})",
        message="cannot change once the run has started; undo the change, or apply it as a resource of another name",
        field=f".spec.{field}",
        reason=FORBIDDEN,
    )


def _same(field: str, *, optional: bool) -> str:
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})" if optional else f"{new} == {old}"


_TOLERATION = [
    Rule(
        expression="self.operator != 'Exists' || !has(self.value)",
        message="operator Exists takes no value; remove value or set operator: Equal",
        field=".value",
        reason=FORBIDDEN,
    ),
    Rule(
        expression="self.operator != 'Equal' || has(self.key)",
        message="operator Equal needs a key; add key or set operator: Exists",
        field=".key",
        reason=REQUIRED,
    ),
    Rule(
        expression="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="only a taint of effect NoExecute is tolerated for a time; remove it or set effect: NoExecute",
        field=".tolerationSeconds",
        reason=FORBIDDEN,
    ),
]


RULES: dict[Path, list[Rule]] = {
    (): [
        Rule(
            expression="size(self.metadata.name) <= 40",
            message="at most 40 characters, so that the names of its Jobs and pods fit; choose a shorter name",
            field=".metadata.name",
            value="self.metadata.name",
        ),
        Rule(
            expression="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            message='must start with a letter and have no ".", because its Service gets the same name; '
            "choose another name",
            field=".metadata.name",
            value="self.metadata.name",
        ),
        *(
            _fixed(name)
            for name in ("model", "dataset", "training", "resources", "scheduling", "storage", "checkpoint")
        ),
        _fixed("podTemplate"),
        *(_fixed(name, optional=True) for name in ("recipe", "evaluation", "managedBy")),
        _fixed("budget.usdPerGpuHour", optional=True),
        _fixed("budget.pricePolicy"),
        Rule(
            # Nobody would look at it any more: what the message of a failed publication says helps another run, or rft.
            expression=f"!({_COMPLETE}) || ({_same('publish', optional=True)})",
            message="nothing is published once the run is complete; undo the change, and publish its folder with "
            "rft publish DIR --to URI",
            field=".spec.publish",
            reason=FORBIDDEN,
        ),
        Rule(
            # A run that was let in by an older CRD is not held up: its limit must remain free to be raised.
            expression=f"!({_RESERVES_FOR_NOTHING.format('self')}) || "
            f"oldSelf.hasValue() && {_RESERVES_FOR_NOTHING.format('oldSelf.value()')}",
            message="nothing is kept back for an evaluation that is not asked for; remove it, or add spec.evaluation",
            field=".spec.budget.evaluationReserveUSD",
            reason=FORBIDDEN,
            optional_old_self=True,
        ),
        Rule(
            # Half a micro-dollar of tolerance makes the comparison of doubles exact.
            expression=f"{_LIMIT} == oldSelf.spec.budget.limitUSD || !has(oldSelf.status) || "
            f"!has(oldSelf.status.cost) || !{is_money(_LIMIT)} || "
            f"double({_LIMIT}) * 1000000.0 + 0.5 >= double({_SPENT})",
            message="cannot be lower than what is already spent (status.cost.spentUSD); "
            "to stop the run set spec.suspend: true",
            field=".spec.budget.limitUSD",
            value=f"string({_LIMIT})",
        ),
    ],
    ("spec",): [
        Rule(
            expression=f"!has(self.training.globalBatchSize) || {_AT_ONCE} < 1 || "
            f"self.training.globalBatchSize % {_AT_ONCE} == 0",
            message="must be a multiple of resources.nodes x resources.gpusPerNode x training.microBatchSize, "
            "so that every GPU gets as many sequences",
            field=".training.globalBatchSize",
        ),
        Rule(
            expression="!has(self.model.secretRef) || !has(self.dataset.secretRef) || "
            "(self.model.secretRef.name == self.dataset.secretRef.name && "
            "self.model.secretRef.key == self.dataset.secretRef.key)",
            message="the hub takes one token; name the same Secret and key as in spec.model.secretRef, or remove one",
            field=".dataset.secretRef",
            value="self.dataset.secretRef.name",
        ),
        Rule(
            expression="!(has(self.model.secretRef) || has(self.dataset.secretRef)) || !has(self.podTemplate.env) || "
            "!self.podTemplate.env.exists(each, each.name == 'HF_TOKEN')",
            message="HF_TOKEN is set from secretRef; remove it here, or remove secretRef",
            field=".podTemplate.env",
            reason=FORBIDDEN,
        ),
    ],
    ("spec", "model"): [
        only_hub("revision", "only a hub model (hf://) has revisions; remove it"),
        only_hub("secretRef", "only a hub model (hf://) needs a token; remove it"),
    ],
    ("spec", "model", "uri"): uris("hf", "pvc", "file", "init"),
    ("spec", "dataset"): [
        Rule(
            expression="!self.uri.startsWith('gym://') || self.format == 's1'",
            message="rows of a generator (gym://) are rendered as s1; set format: s1",
            field=".format",
            value="self.format",
        ),
        Rule(
            expression="!self.uri.startsWith('gym://') || has(self.maxSamples)",
            message="a generator (gym://) is endless; say how many rows to make",
            field=".maxSamples",
            reason=REQUIRED,
        ),
        Rule(
            expression="!self.uri.startsWith('gym://') || self.split == 'train'",
            message="a generator (gym://) has no splits; remove it",
            field=".split",
            value="self.split",
        ),
        only_hub("revision", "only a hub dataset (hf://) has revisions; remove it"),
        only_hub("secretRef", "only a hub dataset (hf://) needs a token; remove it"),
    ],
    ("spec", "dataset", "uri"): uris("hf", "pvc", "file", "gym"),
    **PUBLISH_RULES,
    ("spec", "training"): [
        Rule(
            expression="!has(self.lora) || (has(self.method) && self.method == 'lora')",
            message="only method: lora trains adapters; set it, or remove lora",
            field=".lora",
            reason=FORBIDDEN,
        ),
    ],
    ("spec", "training", "lora", "dropout"): between("0.0", "0.99"),
    ("spec", "training", "learningRate"): between("0.0", "1.0", open_low=True),
    ("spec", "training", "warmupRatio"): between("0.0", "1.0"),
    ("spec", "training", "weightDecay"): between("0.0", "1.0"),
    ("spec", "training", "adamBeta1"): between("0.0", "0.99999"),
    ("spec", "training", "adamBeta2"): between("0.0", "0.99999"),
    ("spec", "training", "maxGradientNorm"): between("0.0", "1000.0", open_low=True),
    ("spec", "training", "deepspeed"): [
        Rule(
            expression="!has(self.offload) || self.offload != 'all' || !has(self.zeroStage) || self.zeroStage == 3",
            message="parameters can only be offloaded in stage 3; set zeroStage: 3 or offload: optimizer",
            field=".offload",
            value="self.offload",
        ),
    ],
    ("spec", "resources", "gpuResource"): [
        Rule(
            expression="!self.startsWith('requests.')",
            message="requests. stands in quotas only; write the name that nodes offer, for example nvidia.com/gpu",
        ),
        Rule(
            expression="!self.contains('/mig-') && !self.endsWith('.shared')",
            message="a slice of a GPU has no price of its own and cannot hold a rank; name whole GPUs, "
            "for example nvidia.com/gpu",
        ),
    ],
    ("spec", "resources"): [
        Rule(
            expression=f"!has(self.extraResources) || !self.extraResources.exists(key, {_GPU_LIKE})",
            message="GPUs are asked for by gpusPerNode and gpuResource, so that every one is paid for; remove it",
            field=".extraResources",
            value=f"self.extraResources.filter(key, {_GPU_LIKE})[0]",
        ),
    ],
    ("spec", "scheduling"): [
        Rule(
            expression="has(self.queueName) || !has(self.queuePriorityClassName)",
            message="only a queue of Kueue has priorities; set queueName, or use priorityClassName for the pods",
            field=".queuePriorityClassName",
            reason=FORBIDDEN,
        ),
        Rule(
            expression="has(self.queueName) || !has(self.topology)",
            message="placement by topology is Kueue's; set queueName, or use nodeSelector",
            field=".topology",
            reason=FORBIDDEN,
        ),
        Rule(
            expression="!has(self.schedulerName) || self.gang != 'volcano' || self.schedulerName.contains('volcano')",
            message="gang: volcano needs the Volcano scheduler; remove schedulerName, or set gang: none",
            field=".schedulerName",
            value="self.schedulerName",
        ),
    ],
    ("spec", "scheduling", "topology"): [
        Rule(
            expression="has(self.required) != has(self.preferred)",
            message="exactly one of required and preferred says how near the ranks are placed",
        ),
    ],
    ("spec", "scheduling", "tolerations", "[]"): _TOLERATION,
    ("spec", "scheduling", "cpuPods", "tolerations", "[]"): _TOLERATION,
    ("spec", "storage"): [
        Rule(
            expression="!has(self.claimName) || !has(self.storageClassName)",
            message="an existing claim (claimName) already has a class; remove one of the two",
            field=".storageClassName",
            reason=FORBIDDEN,
        ),
        Rule(
            # The API server has filled in the default, so that it cannot be told from the same value written down.
            expression=f"!has(self.claimName) || self.size == '{Storage.model_fields['size'].default}'",
            message="an existing claim (claimName) already has a size; remove one of the two",
            field=".size",
            reason=FORBIDDEN,
        ),
        Rule(
            expression="!has(self.claimName) || self.retain",
            message="an existing claim (claimName) is never deleted with the run; remove one of the two",
            field=".retain",
            reason=FORBIDDEN,
        ),
    ],
    ("spec", "budget"): [
        Rule(
            expression=f"!has(self.evaluationReserveUSD) || !{is_money('self.evaluationReserveUSD')} || "
            f"!{is_money('self.limitUSD')} || double(self.evaluationReserveUSD) < double(self.limitUSD)",
            message="must be below limitUSD, or nothing is left to train with",
            field=".evaluationReserveUSD",
            value="string(self.evaluationReserveUSD)",
        ),
    ],
    **EVALUATION_RULES,
    **OVERLAY_RULES,
}

LIST_KEYS: dict[Path, tuple[str, ...]] = {
    ("spec", "evaluation", "benchmarks"): ("name",),
    ("spec", "podTemplate", "env"): ("name",),
    ("spec", "podTemplate", "volumes"): ("name",),
    ("spec", "podTemplate", "imagePullSecrets"): ("name",),
    ("status", "conditions"): ("type",),
    ("status", "attempts"): ("stage", "number"),
}
"""Lists whose items have an identity (x-kubernetes-list-type: map)."""
LIST_SETS = frozenset(
    {
        ("spec", "budget", "warnAtPercent"),
        ("spec", "evaluation", "budgetForcing", "waits"),
        ("spec", "evaluation", "budgetForcing", "sweepThinkingTokens"),
    }
)
