"""Manifests that the API server accepts: the smallest one, and one that sets every field."""

from __future__ import annotations

from typing import Any

MINIMAL: dict[str, Any] = {
    "model": {"uri": "init://tiny-qwen2"},
    "dataset": {"uri": "hf://simplescaling/s1K", "format": "s1"},
    "budget": {"limitUSD": 450},
}
"""A spec of the required fields alone."""

FULL: dict[str, Any] = {
    "recipe": "sky-t1",
    "model": {
        "uri": "hf://Qwen/Qwen2.5-32B-Instruct",
        "revision": "main",
        "secretRef": {"name": "hub", "key": "hf-token"},
    },
    "dataset": {
        "uri": "hf://NovaSky-AI/Sky-T1_data_17k",
        "revision": "main",
        "split": "train",
        "format": "sky-t1",
        "eos": "endoftext",
        "overlong": "fail",
        "maxSamples": 17_000,
        "secretRef": {"name": "hub", "key": "hf-token"},
    },
    "training": {
        "method": "lora",
        "lora": {"rank": 8, "alpha": 16, "dropout": "0.05", "targetModules": ["q_proj", "v_proj"]},
        "epochs": 3,
        "maxSteps": 1_000,
        "learningRate": "1e-5",
        "schedule": "linear",
        "warmupRatio": "0.05",
        "weightDecay": "1e-4",
        "adamBeta1": "0.9",
        "adamBeta2": "0.95",
        "maxGradientNorm": "0.5",
        "globalBatchSize": 96,
        "microBatchSize": 2,
        "maxSequenceLength": 16_384,
        "packing": True,
        "precision": "bf16",
        "gradientCheckpointing": True,
        "seed": 7,
        "deepspeed": {"zeroStage": 3, "offload": "all"},
    },
    "resources": {
        "nodes": 2,
        "gpusPerNode": 8,
        "gpuResource": "nvidia.com/gpu",
        "cpu": 64,
        "memory": "1Ti",
        "sharedMemory": "64Gi",
        "extraResources": {"rdma/hca_shared_devices_a": 1, "hugepages-2Mi": "5Gi"},
    },
    "scheduling": {
        "nodeSelector": {"pool": "h100", "cloud.example.com/zone": ""},
        "tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"key": "drain", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
            {"operator": "Exists"},
        ],
        "cpuPods": {
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [
                {"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
                {"key": "drain", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
            ],
        },
        "priorityClassName": "research",
        "schedulerName": "volcano",
        "queueName": "team-a",
        "queuePriorityClassName": "urgent",
        "topology": {"required": "cloud.provider.com/topology-rack"},
        "gang": "volcano",
    },
    "storage": {"size": "2Ti", "storageClassName": "fast", "retain": False},
    "budget": {
        "limitUSD": "450.50",
        "usdPerGpuHour": "2.95",
        "pricePolicy": "locked",
        "evaluationReserveUSD": 30,
        "warnAtPercent": [25, 50, 90],
        "onExhausted": "suspend",
    },
    "checkpoint": {"everyMinutes": 20, "everySteps": 50, "keepLast": 3, "graceSeconds": 600, "resume": "latest"},
    "timeouts": {
        "pendingSeconds": 600,
        "startupSeconds": 900,
        "stallSeconds": 300,
        "prepareSeconds": 7_200,
        "onStall": "fail",
    },
    "retries": {"maxRestarts": 5},
    "evaluation": {
        "gpus": 1,
        "benchmarks": [
            {
                "name": "math500",
                "uri": "hf://team/math500",
                "limit": 500,
                "samples": 4,
                "temperature": "0.7",
                "topP": "0.95",
                "maxTokens": 32_000,
                "scorer": "math",
                "published": "0.84",
            },
            {
                "name": "sums",
                "uri": "gym://chain_sum?min_terms=2",
                "limit": 100,
                "maxTokens": 9_000,
                "published": "0.5",
            },
            {"name": "aime24", "published": "0.267"},
            {"name": "own", "uri": "configmap://questions/rows.jsonl", "published": "0.5"},
        ],
        "baseline": "published",
        "preset": "reasoning-v1",
        "engine": "vllm",
        "seed": 7,
        "batchSize": 64,
        "budgetForcing": {"waits": [0, 1], "maxThinkingTokens": 8_000, "sweepThinkingTokens": [4_000]},
        "maxSeconds": 7_200,
        "codeExecution": {"cpu": "8", "memory": "16Gi", "maxSeconds": 1_800, "runtimeClassName": "gvisor"},
    },
    "publish": {"uri": "hf://team/model", "private": False, "secretRef": {"name": "hub-write", "key": "token"}},
    "podTemplate": {
        "image": "ghcr.io/team/trainer:1.0",
        "labels": {"team": "reasoning"},
        "annotations": {"example.com/note": "any text: with spaces"},
        "env": [
            {"name": "HF_HOME", "value": "/rft/data/hub"},
            {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "api-key"}}},
        ],
        "volumes": [
            {"name": "settings", "mountPath": "/settings", "configMap": {"name": "settings"}},
            {"name": "licence", "mountPath": "/licence", "secret": {"secretName": "licence"}},
            {
                "name": "scratch",
                "mountPath": "/scratch",
                "persistentVolumeClaim": {"claimName": "scratch", "readOnly": False},
            },
        ],
        "imagePullSecrets": [{"name": "registry"}],
    },
    "suspend": False,
    "ttlSecondsAfterFinished": 3_600,
    "managedBy": "kueue.x-k8s.io/multikueue",
}
"""A spec with every field, but for those that exclude others: ``storage.claimName``, ``topology.preferred``."""
