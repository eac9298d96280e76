"""Rules of ``spec.podTemplate``: what a user may not add to the pods.

Invariant: nothing that the operator, the Job controller or Kueue goes by can be overwritten, and no protection be
taken away.
"""

from __future__ import annotations

from rft_operator.api.cel import Path, Rule

_KUEUE = "key.startsWith('kueue.x-k8s.io/')"
_MEANINGFUL = (
    "kubernetes.io/config.",
    "container.apparmor.security.beta.kubernetes.io/",
    "controller.kubernetes.io/",
    "batch.kubernetes.io/",
)
"""Annotations of pods that Kubernetes reads: they could take a protection away, or the Job would be refused."""


def _no_key_of_ours(condition: str, message: str) -> Rule:
    return Rule(
        expression=f"!self.exists(key, {condition})", message=message, value=f"self.filter(key, {condition})[0]"
    )


OVERLAY_RULES: dict[Path, list[Rule]] = {
    ("spec", "podTemplate", "labels"): [
        _no_key_of_ours(
            "key.startsWith('rft.dev/') || key.startsWith('app.kubernetes.io/') || "
            "key.startsWith('batch.kubernetes.io/') || key in ['job-name', 'controller-uid']",
            "this label is the operator's or the Job controller's; choose another key",
        ),
        _no_key_of_ours(_KUEUE, "Kueue reads this label from the Job; see scheduling.queueName, or remove it"),
    ],
    ("spec", "podTemplate", "annotations"): [
        _no_key_of_ours("key.startsWith('rft.dev/')", "this annotation is the operator's; choose another key"),
        _no_key_of_ours(
            " || ".join(f"key.startsWith('{prefix}')" for prefix in _MEANINGFUL),
            "this annotation changes what Kubernetes does with the pod; remove it",
        ),
    ],
    ("spec", "podTemplate", "env", "[]"): [
        Rule(
            expression="has(self.value) != has(self.valueFrom)",
            message="a variable needs exactly one of value and valueFrom",
            value="self.name",
        ),
    ],
    ("spec", "podTemplate", "env", "[]", "name"): [
        Rule(
            expression="!self.startsWith('RFT_') && !self.startsWith('KUBEFLOW_TRAINER_') "
            "&& !self.startsWith('JOB_COMPLETION_')",
            message="names that start with RFT_, KUBEFLOW_TRAINER_ or JOB_COMPLETION_ are the operator's; "
            "choose another name",
        ),
    ],
    ("spec", "podTemplate", "volumes"): [
        Rule(
            expression="self.all(each, self.exists_one(other, other.mountPath == each.mountPath))",
            message="two volumes have the same mountPath; give each its own",
        ),
    ],
    ("spec", "podTemplate", "volumes", "[]"): [
        Rule(
            expression="[has(self.configMap), has(self.secret), has(self.persistentVolumeClaim)]"
            ".filter(given, given).size() == 1",
            message="a volume needs exactly one of configMap, secret and persistentVolumeClaim",
            value="self.name",
        ),
    ],
    ("spec", "podTemplate", "volumes", "[]", "name"): [
        Rule(
            expression="!self.startsWith('rft-')",
            message="names that start with rft- are the operator's; choose another name",
        ),
    ],
    ("spec", "podTemplate", "volumes", "[]", "mountPath"): [
        Rule(
            expression="!self.matches('^/(rft|tmp|dev|proc|sys)/?$|^/(rft|dev|proc|sys)/|/[.][.]?(/|$)')",
            message="/rft, /tmp, /dev, /proc and /sys are mounted already; mount it elsewhere, without . and .. in it",
        ),
    ],
}
