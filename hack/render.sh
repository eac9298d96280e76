#!/usr/bin/env bash
# Renders the chart for the local cluster into helm/rendered, so that a fresh machine need not build Helm.
# With --check it only says whether the committed file is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
out=helm/rendered/rft-operator-local.yaml
helm=${HELM:-$(.venv/bin/python -m rft_local tools helm)/helm}
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
{
  cat <<'END'
# Rendered by hack/render.sh from helm/rft-operator with values-local.yaml. Do not edit.
apiVersion: v1
kind: Namespace
metadata:
  name: rft-system
  labels:
    # The local cluster's admission policy mounts folders of the host into the operator's pod.
    pod-security.kubernetes.io/enforce: privileged
END
  # Without hooks: applied, the Job that comes before an uninstall would run at once.
  "$helm" template rft-operator helm/rft-operator --no-hooks --namespace rft-system --values helm/rft-operator/values-local.yaml
} >"$fresh"
if cmp -s "$fresh" "$out"; then
  exit 0
fi
if [ "${1:-}" = --check ]; then
  echo "error: $out differs from the chart; run: make generate" >&2
  exit 1
fi
mkdir -p "$(dirname "$out")"
cp "$fresh" "$out"
echo "wrote $out"
