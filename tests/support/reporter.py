"""A trainer's pod that reports its progress as a kubelet equips it: token, address and authority are the pod's own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client

from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import ENV_PROGRESS_TOKEN, ENV_PROGRESS_URL
from support.kubelet import Pod

REPORT = {
    "trainerStatus": {
        "lastUpdatedTime": "2026-01-01T00:00:00Z",
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 90,
        "metrics": [{"name": "step", "value": "20"}, {"name": "loss", "value": "1.25"}],
    }
}


@dataclass(slots=True)
class Reporter:
    """A trainer's pod, and what its environment, its ConfigMap and its volume tell it."""

    core: client.CoreV1Api
    pod: Pod
    url: str
    audience: str
    context: ssl.SSLContext

    @classmethod
    async def of(cls, pod: Pod, *, kube: KubeClient, core: client.CoreV1Api) -> Reporter:
        """Return the reporter in a pod."""
        container, meta = pod["spec"]["containers"][0], pod["metadata"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        source = volumes["rft-token"]["projected"]["sources"][0]["serviceAccountToken"]
        assert env[ENV_PROGRESS_TOKEN] == f"{mounts['rft-token']}/{source['path']}"
        name = f"{meta['labels']['rft.dev/finetune']}-run"
        stored = await kube.get(kind="ConfigMap", namespace=meta["namespace"], name=name)
        context = ssl.create_default_context(cadata=stored["data"]["ca.crt"])
        return cls(core, pod, env[ENV_PROGRESS_URL] or "", source["audience"], context)

    async def token(self, *, audience: str | None = None, pod: Pod | None = None) -> str:
        """Ask for a token as a kubelet does, of the run's audience and bound to the trainer's pod if not told else."""
        meta = (pod or self.pod)["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"audiences": [audience or self.audience], "boundObjectRef": bound, "expirationSeconds": 600}
        answer = await self.core.create_namespaced_service_account_token("default", meta["namespace"], {"spec": spec})
        return str(answer.status.token)

    async def post(self, token: str | None, body: Any = REPORT, *, url: str | None = None) -> tuple[int, str]:
        """Send a report; return the code and the reason of the answer."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url or self.url, json=body, ssl=self.context) as response,
        ):
            return response.status, (await response.json()).get("reason", "")
