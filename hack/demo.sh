#!/usr/bin/env bash
# The main job, from nothing: a local cluster, the operator on it, one ReasoningFinetune, its scores and its bill.
#   DEMO_KEEP=1              leave the cluster running afterwards (end it with: rft local down --name demo)
#   DEMO_FILE=path.yaml      another resource than examples/tiny-local.yaml
#   USE_EXISTING_CLUSTER=1   the cluster of the current kubeconfig; the operator must be installed there with Helm
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
file=${DEMO_FILE:-examples/tiny-local.yaml}
found=$("$bin/python" - "$file" <<'END'
import sys, yaml
try:
    every = list(yaml.safe_load_all(open(sys.argv[1])))
except (OSError, ValueError, yaml.YAMLError) as error:
    sys.exit(f"error: DEMO_FILE={sys.argv[1]} cannot be read: {error}")
runs = [each["metadata"] for each in every if isinstance(each, dict) and each.get("kind") == "ReasoningFinetune"]
if not runs:
    sys.exit(f"error: DEMO_FILE={sys.argv[1]} holds no ReasoningFinetune")
print(runs[0]["name"], runs[0].get("namespace", ""))
END
)
read -r name namespace <<<"$found"
where=()
[ -z "$namespace" ] || where=(--namespace "$namespace")
began=$SECONDS

say() { printf '\n== %s\n' "$*"; }

finish() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then
    say "the demo failed; what the cluster says"
    "$kubectl" describe reasoningfinetune "$name" "${where[@]}" 2>/dev/null | tail -n 40 || true
    "$kubectl" get pods --all-namespaces 2>/dev/null || true
    "$kubectl" -n rft-system logs deployment/rft-operator --tail=30 2>/dev/null || true
  fi
  if [ "${USE_EXISTING_CLUSTER:-}" != 1 ] && [ "${DEMO_KEEP:-}" != 1 ]; then
    "$bin/rft" local down --name demo 2>/dev/null || true
  fi
  exit "$status"
}

if [ "${USE_EXISTING_CLUSTER:-}" = 1 ]; then
  kubectl=$(command -v kubectl) || { echo "error: kubectl is not on PATH; it is needed with USE_EXISTING_CLUSTER=1." >&2; exit 1; }
  "$kubectl" get crd reasoningfinetunes.rft.dev >/dev/null || {
    echo "error: the operator is not installed on the current cluster. Build and push the two images, then:" >&2
    echo "  helm install rft-operator helm/rft-operator -n rft-system --create-namespace --set image.repository=... --set trainer.image=..." >&2
    exit 1
  }
  trap finish EXIT INT TERM
else
  # A proxy for downloads knows no way to the cluster.
  NO_PROXY=$("$bin/python" -m rft_local.proxy)
  no_proxy=$NO_PROXY
  export NO_PROXY no_proxy
  say "1/4 a Kubernetes cluster of two nodes on this machine"
  "$bin/rft" local down --name demo >/dev/null 2>&1 || true
  "$bin/rft" local up --name demo
  kubectl=$("$bin/rft" local tools kubernetes)/kubectl
  KUBECONFIG=$("$bin/rft" local kubeconfig --name demo)
  export KUBECONFIG
  trap finish EXIT INT TERM
  "$kubectl" get nodes

  say "2/4 the operator"
  if [[ "$(helm version --template '{{.Version}}' 2>/dev/null || true)" == v[34].* ]]; then
    helm upgrade --install rft-operator helm/rft-operator --namespace rft-system --create-namespace \
      --values helm/rft-operator/values-local.yaml
  else
    echo "(no Helm 3 or 4 on PATH: applying helm/rendered/rft-operator-local.yaml, the same chart rendered)"
    "$kubectl" apply --server-side -f helm/rendered/rft-operator-local.yaml
  fi
  "$kubectl" -n rft-system rollout status deployment/rft-operator --timeout=180s
  [ -z "$namespace" ] || "$kubectl" get namespace "$namespace" >/dev/null 2>&1 || "$kubectl" create namespace "$namespace"
fi

say "3/4 one file"
"$kubectl" apply -f "$file"
"$bin/rft" watch "$name" "${where[@]}" --timeout 1500

say "4/4 what is left of it"
"$kubectl" get reasoningfinetune "$name" "${where[@]}" -o wide
"$kubectl" get events "${where[@]}" --field-selector "involvedObject.name=$name" --sort-by=.eventTime \
  -o custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message
echo
echo "done in $((SECONDS - began)) s"
if [ "${DEMO_KEEP:-}" = 1 ] && [ "${USE_EXISTING_CLUSTER:-}" != 1 ]; then
  echo "the cluster stays: export KUBECONFIG=$KUBECONFIG; end it with: .venv/bin/rft local down --name demo"
  if [ -n "${HTTPS_PROXY:-}${https_proxy:-}${ALL_PROXY:-}${all_proxy:-}" ]; then
    echo "around the proxy: export NO_PROXY='$NO_PROXY' no_proxy='$NO_PROXY'"
  fi
fi
