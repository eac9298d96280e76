"""Grafana dashboards as code, and the pictures of them in the documentation."""
