"""The language of alert conditions: ``p95_latency > 2s for 5m``.

``parser.parse`` reads and checks a condition, ``evaluator.evaluate`` says for which series it holds
now, ``prometheus.to_prometheus`` writes it as a rule of Prometheus. ``catalogue`` lists the
metrics that can be asked of.
"""
