#!/usr/bin/env bash
# Makes what a release is made of, in dist/: the chart, signed if a key is given; for each image a list of its Python
# packages (requirements-IMAGE.txt) and a bill of materials (sbom-IMAGE.cdx.json, CycloneDX 1.6); SHA256SUMS.
#   SIGN_KEY=NAME SIGN_KEYRING=FILE [SIGN_PASSPHRASE_FILE=FILE] hack/package.sh
# The keyring is one of the old form: gpg --export-secret-keys NAME > FILE.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${DIST:-dist}
helm=${HELM:-$(.venv/bin/python -m rft_local tools helm)/helm}
cache=${RFT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rft}
uv=$(ls -d "$cache"/uv-*/bin/uv 2>/dev/null | tail -n 1) || true
if [ -z "$uv" ]; then
  echo "error: uv is not in $cache; run: make setup" >&2
  exit 1
fi
export UV_SYSTEM_CERTS=1 UV_HTTP_TIMEOUT=300 UV_CACHE_DIR="${UV_CACHE_DIR:-$cache/uv-cache}"

signing=()
if [ -n "${SIGN_KEY:-}" ]; then
  signing=(--sign --key "$SIGN_KEY" --keyring "${SIGN_KEYRING:?error: SIGN_KEYRING must name the keyring that holds SIGN_KEY}")
  [ -z "${SIGN_PASSPHRASE_FILE:-}" ] || signing+=(--passphrase-file "$SIGN_PASSPHRASE_FILE")
fi
mkdir -p "$out"
rm -f "$out"/rft-operator-*.tgz* "$out"/requirements-*.txt "$out"/sbom-*.cdx.json "$out"/SHA256SUMS
"$helm" package helm/rft-operator --destination "$out" "${signing[@]}" >/dev/null

for image in operator trainer; do
  # What the image's Dockerfile installs: the extra of its name at the versions of constraints.txt.
  "$uv" pip compile --quiet --no-header --no-annotate --python .venv/bin/python --constraint constraints.txt \
    --extra "$image" --output-file "$out/requirements-$image.txt" pyproject.toml >/dev/null
  # The requirements say what is installed, not what needs what: the tool warns of that.
  "$uv" tool run --quiet --python .venv/bin/python --from cyclonedx-bom --constraints hack/sbom-requirements.txt \
    cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-format JSON \
    --output-file "$out/sbom-$image.cdx.json" "$out/requirements-$image.txt" 2> >(grep -v -e UserWarning -e '^ *warn(' >&2)
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls "$out"
