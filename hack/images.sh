#!/usr/bin/env bash
# Builds the operator's and the trainer's image with docker, podman or buildah, and writes them as docker archives.
#   BASE=IMAGE                  base of both (default: each Dockerfile's own; where its registry cannot be reached, a Debian
#                               that is bootstrapped from packages)
#   IMAGES="operator trainer"   which ones
#   PREFIX=rft.images TAG=dev   their names: rft.images/operator:dev, rft.images/trainer:dev
#   OUT=build/images            folder of the archives
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra images <<<"${IMAGES:-operator trainer}"
prefix=${PREFIX:-rft.images}
tag=${TAG:-dev}
out=${OUT:-build/images}
declare -A dockerfiles=([operator]=operator/Dockerfile [trainer]=trainer_image/Dockerfile)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() { echo "error: $*" >&2; exit 1; }

for image in "${images[@]}"; do
  [ -n "${dockerfiles[$image]:-}" ] || fail "IMAGES: there is no image '$image'; known are operator and trainer."
done
for program in docker podman buildah; do
  if [ "$program" = buildah ] && command -v buildah >/dev/null || "$program" info >/dev/null 2>&1; then
    builder=$program
    break
  fi
done
[ -n "${builder:-}" ] || fail "no docker or podman that works, and no buildah. On Debian or Ubuntu: apt-get install buildah."
options=()
if [ "$builder" = buildah ]; then
  export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
  options=(--network host)
fi

bootstrap() {
  local name=localhost/rft-base:1
  if ! "$builder" inspect "$name" >/dev/null 2>&1; then
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing. On Debian or Ubuntu: apt-get install mmdebstrap. Or set BASE."
    echo "images: bootstrapping a Debian base" >&2
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$scratch/base.tar" >&2
    printf 'FROM scratch\nADD base.tar /\n' >"$scratch/Dockerfile"
    "$builder" build -q -t "$name" -f "$scratch/Dockerfile" "$scratch" >&2
  fi
  echo "$name"
}

base_of() {
  local wanted
  wanted=$(sed -n 's/^ARG BASE=//p' "${dockerfiles[$1]}")
  if timeout 300 "$builder" pull -q "$wanted" >/dev/null 2>&1; then
    echo "$wanted"
  else
    echo "images: $wanted cannot be pulled" >&2
    bootstrap
  fi
}

# Behind a proxy with its own certificates pip needs the machine's.
if [ -n "${PIP_CERT:-}" ] && [ "$builder" = buildah ]; then
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$scratch/pip.conf"
  options+=(--volume "$scratch/pip.conf:/etc/pip.conf:ro" --volume /etc/ssl/certs:/etc/ssl/certs:ro
    --volume /usr/share/ca-certificates:/usr/share/ca-certificates:ro)
fi
mkdir -p "$out"
for image in "${images[@]}"; do
  name=$prefix/$image:$tag
  base=${BASE:-$(base_of "$image")}
  echo "images: building $name on $base with $builder"
  file=${dockerfiles[$image]}
  if [ "$builder" = buildah ]; then
    buildah build --layers "${options[@]}" --ignorefile "$file.dockerignore" --build-arg "BASE=$base" -t "$name" -f "$file" .
    rm -f "$out/$image.tar"
    buildah push -q "$name" "docker-archive:$out/$image.tar:$name"
  else
    "$builder" build --build-arg "BASE=$base" -t "$name" -f "$file" .
    "$builder" save -o "$out/$image.tar" "$name"
  fi
  echo "images: wrote $out/$image.tar ($(du -h "$out/$image.tar" | cut -f1))"
done
