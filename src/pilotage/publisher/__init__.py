"""From the control plane's truth to the next Snapshot."""
