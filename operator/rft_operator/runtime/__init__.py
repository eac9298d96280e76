"""The machinery around the pure core: queue, cache, API client, reconciler, lease, servers."""
