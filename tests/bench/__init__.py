"""``make bench``: what the operator costs and how fast it is, on a real control plane.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler run alone on 127.0.0.1; the operator is a process of
its own, as a service account, so that API priority and fairness treats it as in production. The benchmark reads the
operator from outside: its own watch and clock for latencies, ``/proc`` for CPU and memory, ``/metrics`` for API calls.

Decisions that the figures depend on:

- One Node object without a kubelet carries GPUs and the label that the price catalogue prices; a Lease that the
  benchmark renews keeps it Ready. It offers too little for any pod, so the pods that the Job controller makes stay
  Pending: the operator does all of its work up to that point (status, ConfigMap, claim, Job, Events, the scheduler's
  verdict), and the benchmark measures nothing of a trainer.
- The local cluster's own helper that provides volumes is stopped: it lists all claims twice a second, which would
  measure the helper.
- The sweep's period is longer than the benchmark, so that a sweep never falls into a window by chance. What a sweep of
  all resources costs is what a restart costs, and that is measured.
- Latency counts from the moment the answer to the create is here ("accepted"), and, shown beside it, from the moment
  the create was sent.
- The load generator and the control plane share the machine with the operator. Each phase says what each of them used,
  and what strangers used: figures of a run that strangers disturbed are worth nothing.
"""
