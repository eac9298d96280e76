"""Specs that the API server refuses, with the field it must name and the words a user must read.

Each is a change to ``builders.SPEC`` that is wrong in one way, so that exactly one cause is expected.
"""

from __future__ import annotations

from typing import Any

from rft_trainer.presets import BENCHMARKS

Bad = tuple[dict[str, Any], str, str]

BENCHMARK = {"name": "sums", "uri": "gym://chain_sum", "limit": 10}
VOLUME = {"name": "extra", "mountPath": "/extra", "configMap": {"name": "extra"}}


def benchmark(**change: Any) -> dict[str, Any]:
    return {"evaluation": {"benchmarks": [{**BENCHMARK, **change}]}}


def forcing(*maximum_tokens: int, **change: Any) -> dict[str, Any]:
    """One benchmark for each maximum of tokens, all with the thinking forced."""
    benchmarks = [{**BENCHMARK, "name": f"sums-{most}", "maxTokens": most} for most in maximum_tokens]
    return {"evaluation": {"benchmarks": benchmarks, "budgetForcing": change}}


def volume(**change: Any) -> dict[str, Any]:
    return {"podTemplate": {"volumes": [{**VOLUME, **change}]}}


def toleration(**change: Any) -> dict[str, Any]:
    return {"scheduling": {"tolerations": [change]}}


def cpu_toleration(**change: Any) -> dict[str, Any]:
    return {"scheduling": {"cpuPods": {"tolerations": [change]}}}


def scheduling(**change: Any) -> dict[str, Any]:
    return {"scheduling": change}


def env(*variables: dict[str, Any]) -> dict[str, Any]:
    return {"podTemplate": {"env": list(variables)}}


BAD: list[Bad] = [
    # what is missing
    ({"model": None}, "spec.model", "Required value"),
    ({"dataset": None}, "spec.dataset", "Required value"),
    ({"dataset": {"format": None}}, "spec.dataset.format", "Required value"),
    ({"budget": None}, "spec.budget", "Required value"),
    ({"budget": {"limitUSD": None}}, "spec.budget.limitUSD", "Required value"),
    (benchmark(name=None), "spec.evaluation.benchmarks[0].name", "Required value"),
    # model and dataset
    ({"model": {"uri": "s3://bucket/x"}}, "spec.model.uri", '"s3://bucket/x": must start with hf://, pvc://, file://'),
    ({"model": {"uri": "Qwen/Qwen2.5-7B"}}, "spec.model.uri", "for example hf://Qwen/Qwen2.5-32B-Instruct"),
    ({"model": {"uri": ""}}, "spec.model.uri", "must start with hf://"),
    ({"model": {"uri": "gym://chain_sum"}}, "spec.model.uri", "must start with hf://, pvc://, file:// or init://"),
    ({"model": {"uri": "hf://Qwen"}}, "spec.model.uri", "a hub address is hf://organisation/name"),
    ({"model": {"uri": "pvc://claim"}}, "spec.model.uri", "a claim's address is pvc://claim/path"),
    ({"model": {"uri": "file://models/x"}}, "spec.model.uri", "file:///absolute/path"),
    ({"model": {"uri": "init://huge"}}, "spec.model.uri", "the only preset of random weights is init://tiny-qwen2"),
    ({"model": {"uri": "hf://a/" + "b" * 512}}, "spec.model.uri", "may not be more than 512 bytes"),
    ({"model": {"revision": "main"}}, "spec.model.revision", "only a hub model (hf://) has revisions; remove it"),
    ({"dataset": {"revision": "main"}}, "spec.dataset.revision", "only a hub dataset (hf://) has revisions; remove it"),
    ({"model": {"secretRef": {"name": "hub"}}}, "spec.model.secretRef", "only a hub model (hf://) needs a token"),
    (
        {"model": {"uri": "hf://a/b", "secretRef": {"name": "My_Secret"}}},
        "spec.model.secretRef.name",
        '"My_Secret": must be the name of an object: lower-case letters',
    ),
    (
        {"model": {"uri": "hf://a/b", "secretRef": {"name": "hub", "key": "..data"}}},
        "spec.model.secretRef.key",
        'but not "." alone or ".." in front',
    ),
    (
        {"model": {"uri": "hf://a/b", "secretRef": {"name": "hub", "key": "a b"}}},
        "spec.model.secretRef.key",
        '"a b": must be a key of a Secret',
    ),
    ({"dataset": {"uri": "init://tiny"}}, "spec.dataset.uri", "must start with hf://, pvc://, file:// or gym://"),
    ({"dataset": {"uri": "hf://s1K"}}, "spec.dataset.uri", '"hf://s1K": a hub address is hf://organisation/name'),
    ({"dataset": {"uri": "pvc://Data/x"}}, "spec.dataset.uri", "a claim's address is pvc://claim/path"),
    ({"dataset": {"uri": "file://rows.jsonl"}}, "spec.dataset.uri", "file:///absolute/path"),
    ({"dataset": {"uri": "gym://Chain-Sum"}}, "spec.dataset.uri", "gym://task?option=value"),
    (
        {"dataset": {"uri": "hf://a/b", "split": "train[:10]"}},
        "spec.dataset.split",
        '"train[:10]": must be letters, digits',
    ),
    ({"dataset": {"split": "test"}}, "spec.dataset.split", "test: a generator (gym://) has no splits; remove it"),
    (
        {"dataset": {"format": "alpaca"}},
        "spec.dataset.format",
        '"alpaca": supported values: "sky-t1", "s1"',
    ),
    ({"dataset": {"format": "messages"}}, "spec.dataset.format", "messages: rows of a generator (gym://) are"),
    ({"dataset": {"eos": "im_start"}}, "spec.dataset.eos", '"im_start": supported values: "template", "im_end"'),
    ({"dataset": {"overlong": "cut"}}, "spec.dataset.overlong", '"cut": supported values: "drop", "fail"'),
    ({"dataset": {"maxSamples": None}}, "spec.dataset.maxSamples", "a generator (gym://) is endless; say how many"),
    ({"dataset": {"maxSamples": 0}}, "spec.dataset.maxSamples", "greater than or equal to 1"),
    # publishing
    ({"publish": {"uri": "s3://a/b"}}, "spec.publish.uri", "must start with hf:// or pvc://"),
    ({"publish": {"uri": "hf://team/s1"}}, "spec.publish.secretRef", "takes a model from nobody without a token"),
    ({"publish": {"uri": "hf://team/s1/a", "secretRef": {"name": "hub"}}}, "spec.publish.uri", "a whole repository"),
    *(
        ({"publish": {"uri": f"hf://{name}", "secretRef": {"name": "hub"}}}, "spec.publish.uri", "takes no such name")
        for name in ("team/-x", "team/x.", "team/a--b", "te..am/x", "team/x.git", f"team/{'x' * 97}")
    ),
    *(
        ({"publish": {"uri": f"pvc://claim/{path}"}}, "spec.publish.uri", 'a path with ".." may leave the volume')
        for path in ("..", "a/../b", "../a", "a/..")
    ),
    ({"publish": {"uri": "hf://team", "secretRef": {"name": "hub"}}}, "spec.publish.uri", "hf://organisation/name"),
    ({"publish": {"uri": "pvc://claim"}}, "spec.publish.uri", "a claim's address is pvc://claim/path"),
    ({"publish": {"uri": "pvc://a/b", "secretRef": {"name": "hub"}}}, "spec.publish.secretRef", "only the hub"),
    ({"publish": {"uri": "pvc://a/b", "private": False}}, "spec.publish.private", "only a repository of the hub"),
    ({"dataset": {"secretRef": {"name": "hub"}}}, "spec.dataset.secretRef", "only a hub dataset (hf://) needs"),
    (
        {
            "model": {"uri": "hf://a/b", "secretRef": {"name": "one"}},
            "dataset": {"uri": "hf://a/b", "secretRef": {"name": "two"}},
        },
        "spec.dataset.secretRef",
        "two: the hub takes one token; name the same Secret and key",
    ),
    # training
    ({"recipe": "s2"}, "spec.recipe", '"s2": supported values: "sky-t1", "s1"'),
    ({"training": {"learningRate": "fast"}}, "spec.training.learningRate", '"fast": must be a decimal number in quot'),
    ({"training": {"learningRate": "5"}}, "spec.training.learningRate", '"5": must be above 0 and at most 1'),
    ({"training": {"learningRate": "0"}}, "spec.training.learningRate", "must be above 0 and at most 1"),
    ({"training": {"learningRate": "-1e-5"}}, "spec.training.learningRate", "must be a decimal number in quotes"),
    ({"training": {"warmupRatio": "1.5"}}, "spec.training.warmupRatio", "must be at least 0 and at most 1"),
    ({"training": {"weightDecay": "2"}}, "spec.training.weightDecay", "must be at least 0 and at most 1"),
    ({"training": {"adamBeta1": "1"}}, "spec.training.adamBeta1", "must be at least 0 and at most 0.99999"),
    ({"training": {"adamBeta2": "1"}}, "spec.training.adamBeta2", "must be at least 0 and at most 0.99999"),
    ({"training": {"maxGradientNorm": "0"}}, "spec.training.maxGradientNorm", "must be above 0 and at most 1000"),
    (
        {"training": {"lora": {"rank": 8}}},
        "spec.training.lora",
        "only method: lora trains adapters; set it, or remove lora",
    ),
    (
        {"training": {"method": "full", "lora": {"rank": 8}}},
        "spec.training.lora",
        "only method: lora trains adapters; set it, or remove lora",
    ),
    ({"training": {"method": "qlora"}}, "spec.training.method", 'supported values: "full", "lora"'),
    (
        {"training": {"method": "lora", "lora": {"rank": 0}}},
        "spec.training.lora.rank",
        "should be greater than or equal to 1",
    ),
    (
        {"training": {"method": "lora", "lora": {"dropout": "1"}}},
        "spec.training.lora.dropout",
        "must be at least 0 and at most 0.99",
    ),
    ({"training": {"schedule": "step"}}, "spec.training.schedule", 'supported values: "cosine", "linear", "constant"'),
    ({"training": {"globalBatchSize": 3}}, "spec.training.globalBatchSize", "must be a multiple of resources.nodes"),
    ({"training": {"precision": "fp16"}}, "spec.training.precision", 'supported values: "bf16", "fp32"'),
    (
        {"training": {"deepspeed": {"zeroStage": 2, "offload": "all"}}},
        "spec.training.deepspeed.offload",
        "all: parameters can only be offloaded in stage 3; set zeroStage: 3 or offload: optimizer",
    ),
    ({"training": {"deepspeed": {"zeroStage": 4}}}, "spec.training.deepspeed.zeroStage", "less than or equal to 3"),
    ({"training": {"learningRate": 1e-5}}, "spec.training.learningRate", 'must be of type string: "number"'),
    # resources, scheduling, storage
    ({"resources": {"nodes": 0}}, "spec.resources.nodes", "greater than or equal to 1"),
    (
        {"resources": {"gpuResource": "requests.nvidia.com/gpu"}},
        "spec.resources.gpuResource",
        "requests. stands in quotas only; write the name that nodes offer",
    ),
    (
        {"resources": {"gpuResource": "nvidia.com/mig-1g.5gb"}},
        "spec.resources.gpuResource",
        "a slice of a GPU has no price",
    ),
    ({"resources": {"gpuResource": "nvidia.com/gpu.shared"}}, "spec.resources.gpuResource", "name whole GPUs"),
    ({"resources": {"gpuResource": "gpu"}}, "spec.resources.gpuResource", '"gpu": must be the name of an extended'),
    ({"resources": {"memory": "lots"}}, "spec.resources.memory", '"lots": must be a quantity above 0, such as'),
    ({"resources": {"cpu": 0}}, "spec.resources.cpu", "0: must be a quantity above 0"),
    ({"resources": {"sharedMemory": "0Gi"}}, "spec.resources.sharedMemory", '"0Gi": must be a quantity above 0'),
    (
        cpu_toleration(operator="Exists", key="a", value="b"),
        "spec.scheduling.cpuPods.tolerations[0].value",
        "operator Exists takes no value",
    ),
    (cpu_toleration(value="x"), "spec.scheduling.cpuPods.tolerations[0].key", "operator Equal needs a key"),
    (cpu_toleration(key="a b"), "spec.scheduling.cpuPods.tolerations[0].key", '"a b": must look like pool'),
    (cpu_toleration(key="a", value="-"), "spec.scheduling.cpuPods.tolerations[0].value", '"-": must be empty or'),
    (
        cpu_toleration(key="gpu", effect="NoSchedule", tolerationSeconds=5),
        "spec.scheduling.cpuPods.tolerations[0].tolerationSeconds",
        "remove it or set effect: NoExecute",
    ),
    (
        {"scheduling": {"cpuPods": {"nodeSelector": {"pool": "-"}}}},
        "spec.scheduling.cpuPods.nodeSelector[pool]",
        '"-": must be empty or letters',
    ),
    (
        {"scheduling": {"cpuPods": {"nodeSelector": {"a b": "c"}}}},
        "spec.scheduling.cpuPods.nodeSelector",
        "a b",
    ),
    (
        {"scheduling": {"nodeSelector": {"a..b/c": "d"}}},
        "spec.scheduling.nodeSelector",
        "a..b/c: this key must look like pool",
    ),
    (
        {"scheduling": {"nodeSelector": {"a b": "c"}}},
        "spec.scheduling.nodeSelector",
        "a b: this key must look like pool or example.com/pool",
    ),
    (
        {"scheduling": {"nodeSelector": {"pool": "-"}}},
        "spec.scheduling.nodeSelector[pool]",
        '"-": must be empty or letters',
    ),
    # queues, gangs and devices
    (
        {"resources": {"extraResources": {"example.com/gpu": 1}}},
        "spec.resources.extraResources",
        "asked for by gpusPerNode",
    ),
    ({"resources": {"extraResources": {"nvidia.com/mig-1g.10gb": 1}}}, "spec.resources.extraResources", "is paid for"),
    (
        {"resources": {"extraResources": {"memory": "1Gi"}}},
        "spec.resources.extraResources",
        "this key must be an extended",
    ),
    (
        {"resources": {"extraResources": {"rdma/hca": 0}}},
        "spec.resources.extraResources[rdma/hca]",
        "a quantity above 0",
    ),
    (scheduling(queueName="Team"), "spec.scheduling.queueName", "lower-case letters"),
    (
        scheduling(queuePriorityClassName="urgent"),
        "spec.scheduling.queuePriorityClassName",
        "only a queue of Kueue has priorities; set queueName",
    ),
    (
        scheduling(topology={"required": "rack"}),
        "spec.scheduling.topology",
        "placement by topology is Kueue's; set queueName",
    ),
    (scheduling(queueName="a", topology={}), "spec.scheduling.topology", "exactly one of required and preferred"),
    (
        scheduling(queueName="a", topology={"required": "rack", "preferred": "block"}),
        "spec.scheduling.topology",
        "exactly one of required and preferred",
    ),
    (scheduling(gang="volcano", schedulerName="other"), "spec.scheduling.schedulerName", "other: gang: volcano needs"),
    (scheduling(gang="some"), "spec.scheduling.gang", "Unsupported value"),
    (
        {"podTemplate": {"labels": {"kueue.x-k8s.io/queue-name": "a"}}},
        "spec.podTemplate.labels",
        "see scheduling.queueName",
    ),
    (toleration(operator="Maybe"), "spec.scheduling.tolerations[0].operator", 'supported values: "Exists", "Equal"'),
    (
        toleration(operator="Exists", value="x"),
        "spec.scheduling.tolerations[0].value",
        "operator Exists takes no value",
    ),
    (toleration(value="x"), "spec.scheduling.tolerations[0].key", "operator Equal needs a key; add key or set"),
    (
        toleration(key="gpu", effect="NoSchedule", tolerationSeconds=5),
        "spec.scheduling.tolerations[0].tolerationSeconds",
        "remove it or set effect: NoExecute",
    ),
    (
        toleration(key="gpu", effect="Never"),
        "spec.scheduling.tolerations[0].effect",
        'supported values: "NoSchedule"',
    ),
    (
        {"scheduling": {"priorityClassName": "High"}},
        "spec.scheduling.priorityClassName",
        '"High": must be the name of an object',
    ),
    (
        {"storage": {"claimName": "data", "storageClassName": "fast"}},
        "spec.storage.storageClassName",
        "an existing claim (claimName) already has a class; remove one of the two",
    ),
    (
        {"storage": {"claimName": "data", "size": "2Ti"}},
        "spec.storage.size",
        "an existing claim (claimName) already has a size; remove one of the two",
    ),
    ({"storage": {"claimName": "data", "size": 5}}, "spec.storage.size", "already has a size; remove one of the two"),
    (
        {"storage": {"claimName": "data", "retain": False}},
        "spec.storage.retain",
        "an existing claim (claimName) is never deleted with the run; remove one of the two",
    ),
    ({"storage": {"size": "big"}}, "spec.storage.size", '"big": must be a quantity above 0'),
    # money; the API server itself words the answer to a wrong type
    ({"budget": {"limitUSD": 450.5}}, "spec.budget.limitUSD", 'must be of type integer,string: "number"'),
    ({"budget": {"limitUSD": True}}, "spec.budget.limitUSD", 'must be of type integer,string: "boolean"'),
    ({"budget": {"usdPerGpuHour": 2.95}}, "spec.budget.usdPerGpuHour", "must be of type integer,string"),
    ({"budget": {"limitUSD": 0}}, "spec.budget.limitUSD", "0: must be above 0 and below a billion US dollars"),
    ({"budget": {"limitUSD": -5}}, "spec.budget.limitUSD", "-5: must be above 0 and below a billion US dollars"),
    (
        {"budget": {"limitUSD": "$450"}},
        "spec.budget.limitUSD",
        '"$450": must be above 0 and below a billion US dollars',
    ),
    ({"budget": {"limitUSD": "4.5e2"}}, "spec.budget.limitUSD", 'a quoted decimal such as "450.50"'),
    ({"budget": {"limitUSD": "1.0000001"}}, "spec.budget.limitUSD", 'a quoted decimal such as "450.50"'),
    ({"budget": {"limitUSD": 10**9}}, "spec.budget.limitUSD", "must be above 0 and below a billion US dollars"),
    (
        {"budget": {"usdPerGpuHour": "0.00"}},
        "spec.budget.usdPerGpuHour",
        "must be above 0 and below a billion US dollars",
    ),
    (
        {"budget": {"evaluationReserveUSD": "x"}},
        "spec.budget.evaluationReserveUSD",
        "must be at least 0 and below",
    ),
    (
        {"budget": {"evaluationReserveUSD": 10}},
        "spec.budget.evaluationReserveUSD",
        "10: must be below limitUSD, or nothing is left to train with",
    ),
    (
        {"evaluation": None, "budget": {"evaluationReserveUSD": 0}},
        "spec.budget.evaluationReserveUSD",
        "nothing is kept back for an evaluation that is not asked for; remove it, or add spec.evaluation",
    ),
    ({"budget": {"warnAtPercent": [50, 50]}}, "spec.budget.warnAtPercent[1]", "Duplicate value: 50"),
    ({"budget": {"warnAtPercent": [100]}}, "spec.budget.warnAtPercent[0]", "less than or equal to 99"),
    ({"budget": {"pricePolicy": "cheapest"}}, "spec.budget.pricePolicy", 'supported values: "locked", "floating"'),
    ({"budget": {"onExhausted": "overdraw"}}, "spec.budget.onExhausted", 'supported values: "stop", "suspend"'),
    # life
    ({"checkpoint": {"graceSeconds": 5}}, "spec.checkpoint.graceSeconds", "greater than or equal to 10"),
    ({"checkpoint": {"resume": "oldest"}}, "spec.checkpoint.resume", 'supported values: "latest", "never"'),
    ({"timeouts": {"stallSeconds": 0}}, "spec.timeouts.stallSeconds", "greater than or equal to 10"),
    ({"timeouts": {"onStall": "wait"}}, "spec.timeouts.onStall", 'supported values: "restart", "fail"'),
    ({"retries": {"maxRestarts": -1}}, "spec.retries.maxRestarts", "greater than or equal to 0"),
    ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished", "greater than or equal to 0"),
    ({"managedBy": "kueue"}, "spec.managedBy", '"kueue": must be domain/controller'),
    ({"suspend": "yes"}, "spec.suspend", "must be of type boolean"),
    # evaluation
    ({"evaluation": {"benchmarks": []}}, "spec.evaluation.benchmarks", "should have at least 1 items"),
    (benchmark(name="Sums"), "spec.evaluation.benchmarks[0].name", '"Sums": must be lower-case letters, digits'),
    (
        benchmark(uri="math500"),
        "spec.evaluation.benchmarks[0].uri",
        "must start with hf://, pvc://, file://, configmap:// or gym://",
    ),
    (
        benchmark(uri=None),
        "spec.evaluation.benchmarks[0].uri",
        f"say where the rows are; only of {', '.join(sorted(BENCHMARKS))} it is known",
    ),
    (
        benchmark(uri="configmap://rows"),
        "spec.evaluation.benchmarks[0].uri",
        "a ConfigMap's address is configmap://name/key",
    ),
    (benchmark(scorer="math"), "spec.evaluation.benchmarks[0].scorer", "judges its answers itself; remove it"),
    (benchmark(scorer="judge"), "spec.evaluation.benchmarks[0].scorer", 'supported values: "math", "integer"'),
    (benchmark(topP="0"), "spec.evaluation.benchmarks[0].topP", "must be above 0 and at most 1"),
    (
        {"evaluation": {"baseline": "published", "benchmarks": [{**BENCHMARK, "published": "84"}]}},
        "spec.evaluation.benchmarks[0].published",
        "must be at least 0 and at most 1",
    ),
    (benchmark(published="0.84"), "spec.evaluation.benchmarks", "under baseline: published alone; set it, or remove"),
    (
        {"evaluation": {"baseline": "none", "benchmarks": [{**BENCHMARK, "published": "0.84"}]}},
        "spec.evaluation.benchmarks",
        "under baseline: published alone; set it, or remove",
    ),
    (
        {"evaluation": {"gpus": 2}},
        "spec.evaluation.gpus",
        "the engine transformers uses one GPU; set engine: vllm, or gpus: 1",
    ),
    ({"evaluation": {"preset": "s2"}}, "spec.evaluation.preset", 'supported values: "reasoning-v1", "s1", "skyth'),
    (benchmark(uri="hf://math500"), "spec.evaluation.benchmarks[0].uri", "a hub address is hf://organisation/name"),
    (benchmark(uri="pvc://data"), "spec.evaluation.benchmarks[0].uri", "a claim's address is pvc://claim/path"),
    (benchmark(uri="file://x"), "spec.evaluation.benchmarks[0].uri", "file:///absolute/path"),
    (benchmark(uri="gym://x-y"), "spec.evaluation.benchmarks[0].uri", "gym://task?option=value"),
    (benchmark(limit=None), "spec.evaluation.benchmarks[0].limit", "say how many questions to ask"),
    (benchmark(samples=4), "spec.evaluation.benchmarks", "set samples: 1 or a temperature above 0"),
    (benchmark(samples=4, temperature="0.0"), "spec.evaluation.benchmarks", "set samples: 1 or a temperature above 0"),
    (
        {"evaluation": {"preset": "s1", "benchmarks": [{**BENCHMARK, "samples": 4}]}},
        "spec.evaluation.benchmarks",
        "set samples: 1 or a temperature above 0",
    ),
    (benchmark(temperature="hot"), "spec.evaluation.benchmarks[0].temperature", "must be a decimal number in quotes"),
    (benchmark(temperature="3"), "spec.evaluation.benchmarks[0].temperature", "must be at least 0 and at most 2"),
    (forcing(100, waits=[0]), "spec.evaluation.budgetForcing.maxThinkingTokens", "Required value"),
    (
        forcing(200, 100, maxThinkingTokens=100),
        "spec.evaluation.budgetForcing.maxThinkingTokens",
        "must be below the maxTokens of every benchmark, for the rest is kept for the answer",
    ),
    (
        forcing(*range(200, 206), maxThinkingTokens=100, waits=[0, 1, 2]),
        "spec.evaluation.budgetForcing",
        "benchmarks x waits x budgets are more than 16 scores",
    ),
    (
        forcing(200, 201, 202, maxThinkingTokens=100, waits=[0, 1], sweepThinkingTokens=[10, 20]),
        "spec.evaluation.budgetForcing",
        "benchmarks x waits x budgets are more than 16 scores",
    ),
    (
        forcing(200, maxThinkingTokens=100, sweepThinkingTokens=[10, 100]),
        "spec.evaluation.budgetForcing.sweepThinkingTokens",
        "must be below maxThinkingTokens, which is the largest budget",
    ),
    (
        forcing(100, maxThinkingTokens=10, waits=[]),
        "spec.evaluation.budgetForcing.waits",
        "should have at least 1 items",
    ),
    (
        forcing(100, maxThinkingTokens=10, waits=[1, 1]),
        "spec.evaluation.budgetForcing.waits[1]",
        "Duplicate value: 1",
    ),
    (
        {"evaluation": {"benchmarks": [BENCHMARK, BENCHMARK]}},
        "spec.evaluation.benchmarks[1]",
        'Duplicate value: {"name":"sums"}',
    ),
    # the overlay on the pods
    ({"podTemplate": {"image": "my image"}}, "spec.podTemplate.image", '"my image": must be an image without spaces'),
    (
        {"podTemplate": {"labels": {"rft.dev/stage": "x"}}},
        "spec.podTemplate.labels",
        "rft.dev/stage: this label is the operator's or the Job controller's; choose another key",
    ),
    ({"podTemplate": {"labels": {"job-name": "x"}}}, "spec.podTemplate.labels", "job-name: this label is"),
    ({"podTemplate": {"labels": {"-": "x"}}}, "spec.podTemplate.labels", "-: this key must look like pool"),
    ({"podTemplate": {"labels": {"a": "b c"}}}, "spec.podTemplate.labels[a]", '"b c": must be empty or letters'),
    (
        {"podTemplate": {"annotations": {"rft.dev/x": "y"}}},
        "spec.podTemplate.annotations",
        "rft.dev/x: this annotation is the operator's; choose another key",
    ),
    (
        {"podTemplate": {"annotations": {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}}},
        "spec.podTemplate.annotations",
        "container.apparmor.security.beta.kubernetes.io/trainer: this annotation changes what Kubernetes does",
    ),
    (
        {"podTemplate": {"annotations": {"a/b/c": "y"}}},
        "spec.podTemplate.annotations",
        "a/b/c: this key must look like pool",
    ),
    (env({"name": "A"}), "spec.podTemplate.env[0]", "A: a variable needs exactly one of value and valueFrom"),
    (env({"name": "1A", "value": ""}), "spec.podTemplate.env[0].name", '"1A": must be letters, digits and "_"'),
    (env({"name": "RFT_X", "value": ""}), "spec.podTemplate.env[0].name", '"RFT_X": names that start with RFT_'),
    (
        env({"name": "A", "value": "1"}, {"name": "A", "value": "2"}),
        "spec.podTemplate.env[1]",
        'Duplicate value: {"name":"A"}',
    ),
    (
        env({"name": "HF_TOKEN", "value": "x"}) | {"model": {"uri": "hf://a/b", "secretRef": {"name": "hub"}}},
        "spec.podTemplate.env",
        "HF_TOKEN is set from secretRef; remove it here, or remove secretRef",
    ),
    (
        volume(secret={"secretName": "s"}),
        "spec.podTemplate.volumes[0]",
        "extra: a volume needs exactly one of configMap, secret and persistentVolumeClaim",
    ),
    (volume(name="rft-data"), "spec.podTemplate.volumes[0].name", '"rft-data": names that start with rft- are'),
    (volume(mountPath="extra"), "spec.podTemplate.volumes[0].mountPath", '"extra": must be an absolute path'),
    (
        volume(mountPath="/rft/data"),
        "spec.podTemplate.volumes[0].mountPath",
        '"/rft/data": /rft, /tmp, /dev, /proc and /sys are',
    ),
    (volume(mountPath="/tmp/"), "spec.podTemplate.volumes[0].mountPath", "are mounted already"),
    (volume(mountPath="/dev/termination-log"), "spec.podTemplate.volumes[0].mountPath", "are mounted already"),
    (volume(mountPath="/x/../rft"), "spec.podTemplate.volumes[0].mountPath", "without . and .. in it"),
    (
        {"podTemplate": {"volumes": [VOLUME, {**VOLUME, "name": "other"}]}},
        "spec.podTemplate.volumes",
        "two volumes have the same mountPath; give each its own",
    ),
    (
        {"podTemplate": {"imagePullSecrets": [{"name": "Registry"}]}},
        "spec.podTemplate.imagePullSecrets[0].name",
        '"Registry": must be the name of an object',
    ),
]

FIXED: list[tuple[dict[str, Any], str]] = [
    ({"recipe": "s1"}, "spec.recipe"),
    ({"recipe": None}, "spec.recipe"),
    ({"model": {"revision": "v2"}}, "spec.model"),
    ({"model": {"uri": "hf://Qwen/Qwen2.5-7B"}}, "spec.model"),
    ({"dataset": {"maxSamples": 5}}, "spec.dataset"),
    ({"training": {"epochs": 4}}, "spec.training"),
    ({"training": {"packing": None}}, "spec.training"),
    ({"training": {"deepspeed": {"zeroStage": None}}}, "spec.training"),
    ({"resources": {"nodes": 1}}, "spec.resources"),
    ({"scheduling": {"tolerations": None}}, "spec.scheduling"),
    ({"scheduling": {"nodeSelector": {"pool": "a100"}}}, "spec.scheduling"),
    ({"storage": {"size": "3Ti"}}, "spec.storage"),
    ({"checkpoint": {"graceSeconds": 60}}, "spec.checkpoint"),
    ({"evaluation": None, "budget": {"evaluationReserveUSD": None}}, "spec.evaluation"),
    ({"evaluation": {"batchSize": 1}}, "spec.evaluation"),
    ({"podTemplate": {"image": "other"}}, "spec.podTemplate"),
    ({"managedBy": None}, "spec.managedBy"),
    ({"budget": {"usdPerGpuHour": "3.00"}}, "spec.budget.usdPerGpuHour"),
    ({"budget": {"usdPerGpuHour": None}}, "spec.budget.usdPerGpuHour"),
    ({"budget": {"pricePolicy": "floating"}}, "spec.budget.pricePolicy"),
]
"""Edits of ``manifests.FULL`` that a started run refuses, with the field."""

FREE: list[dict[str, Any]] = [
    {"budget": {"limitUSD": 500}},
    {"budget": {"limitUSD": "60.25"}},
    {"budget": {"evaluationReserveUSD": None}},
    {"budget": {"warnAtPercent": [10]}},
    {"budget": {"onExhausted": "stop"}},
    {"suspend": True},
    {"timeouts": {"pendingSeconds": 60, "onStall": "restart"}},
    {"retries": {"maxRestarts": 0}},
    {"ttlSecondsAfterFinished": None},
    {"publish": {"uri": "hf://team/another"}},
    {"publish": None},
]
"""Edits of ``manifests.FULL`` that are accepted at any time, with $60.25 spent."""
