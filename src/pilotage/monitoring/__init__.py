"""Numbers from the call frames: rollups, per-call rows, alerts, notices, drift, dashboards."""
