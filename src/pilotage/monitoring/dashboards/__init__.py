"""Dashboards: what people look at, described once and rendered for Grafana."""
