"""Rules across fields, in CEL: the API server refuses a wrong resource at once and says what to change.

Invariant: no rule needs a webhook, and each message names the field and the remedy. Keys are paths in the schema:
``()`` is the whole resource, ``[]`` the items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must hold, and what to tell the user if it does not."""

    expression: str
    message: str

    def to_wire(self) -> dict[str, str]:
        """Return the form of ``x-kubernetes-validations``."""
        return {"rule": self.expression, "message": self.message}


MONEY = Rule(
    "type(self) == int ? self >= 0 && self <= 999999999 : string(self).matches('^[0-9]{1,9}([.][0-9]{1,6})?$')",
    'must be an amount in dollars: a whole number such as 450, or a quoted decimal such as "450.50"',
)


def _uri(field: str, *schemes: str) -> list[Rule]:
    known = {
        "hf": Rule(
            "!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(/.+)?$')",
            f"{field}: a hub address is hf://organisation/name, for example hf://Qwen/Qwen2.5-32B-Instruct",
        ),
        "pvc": Rule(
            "!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$')",
            f"{field}: a claim's address is pvc://claim/path, with the name of a PersistentVolumeClaim",
        ),
        "file": Rule(
            "!self.startsWith('file://') || self.matches('^file:///.+$')",
            f"{field}: a file's address is file:///absolute/path in the trainer's container (three slashes)",
        ),
        "init": Rule(
            "!self.startsWith('init://') || self.matches('^init://tiny-qwen2([?].*)?$')",
            f"{field}: the only preset of random weights is init://tiny-qwen2",
        ),
        "gym": Rule(
            "!self.startsWith('gym://') || self.matches('^gym://[a-z0-9_]+([?].*)?$')",
            f"{field}: a generator's address is gym://task?option=value, for example gym://chain_sum?min_terms=2",
        ),
    }
    return [known[scheme] for scheme in schemes]


def _between(field: str, name: str, low: str, high: str, *, open_low: bool = False) -> Rule:
    compare = ">" if open_low else ">="
    return Rule(
        f"!has(self.{name}) || (double(self.{name}) {compare} {low} && double(self.{name}) <= {high})",
        f"{field}.{name}: must be {'above' if open_low else 'at least'} {low} and at most {high}",
    )


_MICRO = "(has(self.training.microBatchSize) ? self.training.microBatchSize : 1)"
RANKS = f"(self.resources.nodes * self.resources.gpusPerNode * {_MICRO})"
_HUB = "self.uri.startsWith('hf://')"


def _fixed(field: str, *, optional: bool = False) -> Rule:
    """A field that gives the run its meaning cannot change once the run has started."""
    started = "has(oldSelf.status) && has(oldSelf.status.startTime)"
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    same = f"{new} == {old}"
    if optional:
        same = f"has({new}) == has({old}) && (!has({new}) || {same})"
    return Rule(
        f"!({started}) || ({same})",
        f"spec.{field}: cannot change once the run has started; delete the resource and apply it under another name",
    )


RULES: dict[Path, list[Rule]] = {
    (): [
        Rule(
            "size(self.metadata.name) <= 40",
            "metadata.name: at most 40 characters, so that the names of its Jobs and pods fit; choose a shorter name",
        ),
        *(
            _fixed(name)
            for name in ("model", "dataset", "training", "resources", "scheduling", "storage", "checkpoint")
        ),
        _fixed("podTemplate"),
        *(_fixed(name, optional=True) for name in ("recipe", "evaluation", "managedBy")),
        _fixed("budget.usdPerGpuHour", optional=True),
        Rule(
            "self.spec.budget.limitUSD == oldSelf.spec.budget.limitUSD || !has(oldSelf.status) || "
            "!has(oldSelf.status.cost) || "
            "double(self.spec.budget.limitUSD) * 1000000.0 >= double(oldSelf.status.cost.spentMicroUSD)",
            "spec.budget.limitUSD: cannot be lower than what is already spent (status.cost.spentUSD); "
            "to stop the run set spec.suspend: true",
        ),
    ],
    ("spec",): [
        Rule(
            f"!has(self.training.globalBatchSize) || self.training.globalBatchSize % {RANKS} == 0",
            "spec.training.globalBatchSize: must be a multiple of resources.nodes x resources.gpusPerNode x "
            "training.microBatchSize, so that every GPU gets as many sequences",
        ),
    ],
    ("spec", "model"): [
        Rule(
            f"!has(self.revision) || {_HUB}", "spec.model.revision: only a hub model (hf://) has revisions; remove it"
        ),
        Rule(
            f"!has(self.secretRef) || {_HUB}", "spec.model.secretRef: only a hub model (hf://) needs a token; remove it"
        ),
    ],
    ("spec", "model", "uri"): _uri("spec.model.uri", "hf", "pvc", "file", "init"),
    ("spec", "dataset"): [
        Rule(
            "!self.uri.startsWith('gym://') || self.format == 's1'",
            "spec.dataset.format: rows of a generator (gym://) are rendered as s1; set format: s1",
        ),
        Rule(
            "!self.uri.startsWith('gym://') || has(self.maxSamples)",
            "spec.dataset.maxSamples: a generator (gym://) is endless; say how many rows to make",
        ),
        Rule(
            f"!has(self.secretRef) || {_HUB}",
            "spec.dataset.secretRef: only a hub dataset (hf://) needs a token; remove it",
        ),
    ],
    ("spec", "dataset", "uri"): _uri("spec.dataset.uri", "hf", "pvc", "file", "gym"),
    ("spec", "training"): [
        _between("spec.training", "learningRate", "0.0", "1.0", open_low=True),
        _between("spec.training", "warmupRatio", "0.0", "1.0"),
        _between("spec.training", "weightDecay", "0.0", "1.0"),
        _between("spec.training", "adamBeta1", "0.0", "0.99999"),
        _between("spec.training", "adamBeta2", "0.0", "0.99999"),
        _between("spec.training", "maxGradientNorm", "0.0", "1000.0", open_low=True),
    ],
    ("spec", "training", "deepspeed"): [
        Rule(
            "!has(self.offload) || self.offload != 'all' || !has(self.zeroStage) || self.zeroStage == 3",
            "spec.training.deepspeed.offload: parameters can only be offloaded in stage 3; "
            "set zeroStage: 3 or offload: optimizer",
        ),
    ],
    ("spec", "scheduling", "tolerations", "[]"): [
        Rule(
            "self.operator != 'Exists' || !has(self.value)",
            "spec.scheduling.tolerations: operator Exists takes no value; remove value or set operator: Equal",
        ),
        Rule(
            "self.operator != 'Equal' || has(self.key)",
            "spec.scheduling.tolerations: operator Equal needs a key; add key or set operator: Exists",
        ),
    ],
    ("spec", "storage"): [
        Rule(
            "!has(self.claimName) || !has(self.storageClassName)",
            "spec.storage.storageClassName: an existing claim (claimName) already has a class; remove one of the two",
        ),
    ],
    ("spec", "budget"): [
        Rule("double(self.limitUSD) > 0.0", "spec.budget.limitUSD: must be above 0; a run costs money"),
        Rule(
            "!has(self.usdPerGpuHour) || double(self.usdPerGpuHour) > 0.0",
            "spec.budget.usdPerGpuHour: must be above 0; remove it to take the price from the catalogue",
        ),
        Rule(
            "!has(self.evaluationReserveUSD) || double(self.evaluationReserveUSD) < double(self.limitUSD)",
            "spec.budget.evaluationReserveUSD: must be below limitUSD, or nothing is left to train with",
        ),
    ],
    ("spec", "evaluation", "benchmarks", "[]"): [
        Rule(
            "self.samples == 1 || double(self.temperature) > 0.0",
            "spec.evaluation.benchmarks.samples: several answers of temperature 0 are all the same; "
            "set samples: 1 or a temperature above 0",
        ),
        _between("spec.evaluation.benchmarks", "temperature", "0.0", "2.0"),
        Rule(
            "!self.uri.startsWith('gym://') || has(self.limit)",
            "spec.evaluation.benchmarks.limit: a generator (gym://) is endless; say how many questions to ask",
        ),
    ],
    ("spec", "evaluation", "benchmarks", "[]", "uri"): _uri(
        "spec.evaluation.benchmarks.uri", "hf", "pvc", "file", "gym"
    ),
    ("spec", "podTemplate", "labels"): [
        Rule(
            "self.all(key, !key.startsWith('rft.dev/') && !key.startsWith('app.kubernetes.io/'))",
            "spec.podTemplate.labels: keys of rft.dev/ and app.kubernetes.io/ are the operator's; choose another key",
        ),
    ],
    ("spec", "podTemplate", "annotations"): [
        Rule(
            "self.all(key, !key.startsWith('rft.dev/'))",
            "spec.podTemplate.annotations: keys of rft.dev/ are the operator's; choose another key",
        ),
    ],
    ("spec", "podTemplate", "env", "[]"): [
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "spec.podTemplate.env: each variable needs exactly one of value and valueFrom",
        ),
        Rule(
            "!self.name.startsWith('RFT_') && !self.name.startsWith('KUBEFLOW_TRAINER_') "
            "&& !self.name.startsWith('JOB_COMPLETION_')",
            "spec.podTemplate.env: names that start with RFT_, KUBEFLOW_TRAINER_ or JOB_COMPLETION_ are the "
            "operator's; choose another name",
        ),
    ],
    ("spec", "podTemplate", "volumes", "[]"): [
        Rule(
            "[has(self.configMap), has(self.secret), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
            "spec.podTemplate.volumes: each volume needs exactly one of configMap, secret and persistentVolumeClaim",
        ),
        Rule(
            "!self.name.startsWith('rft-')",
            "spec.podTemplate.volumes.name: names that start with rft- are the operator's; choose another name",
        ),
        Rule(
            "self.mountPath != '/rft' && !self.mountPath.startsWith('/rft/')",
            "spec.podTemplate.volumes.mountPath: /rft belongs to the operator; mount it elsewhere",
        ),
    ],
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
LIST_SETS = frozenset({("spec", "budget", "warnAtPercent")})
