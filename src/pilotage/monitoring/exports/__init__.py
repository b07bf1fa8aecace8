"""The numbers for other programs: a page for Prometheus, and OTLP."""
