#!/bin/bash
# PID 1 of a node: starts its container runtime, its proxy and its kubelet, and reaps orphans.
# Arguments: node name, node's state folder, node address, folder of the Kubernetes programs, folder of images.
set -u
name=$1 state=$2 address=$3 programs=$4 images=$5
hostname "$name"
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$state/kubelet" /var/lib/kubelet
mount --bind "$state/containerd" /var/lib/containerd
mount --bind "$state/log/pods" /var/log/pods
mount --bind "$state/log/containers" /var/log/containers
mount --bind "$state/cni" /etc/cni/net.d
mkdir -p /run/containerd /run/netns
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
cd /
containerd -c "$state/containerd.toml" >>"$state/log/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for archive in "$images"/*.tar; do
  ctr -n k8s.io images import "$archive" >/dev/null
done
"$programs/kube-proxy" --config "$state/proxy.yaml" >>"$state/log/kube-proxy.log" 2>&1 &
trap 'exit 0' TERM
while :; do
  "$programs/kubelet" --config "$state/kubelet.yaml" --kubeconfig "$state/kubeconfig" --hostname-override "$name" \
    --node-ip "$address" --node-labels "$(cat "$state/labels")" >>"$state/log/kubelet.log" 2>&1 &
  echo $! >"$state/kubelet.pid"
  wait $!
  while [ -e "$state/hold" ]; do sleep 0.2; done
  sleep 0.5
done
