"""What a gateway tells of its calls: metrics, traces and the request log; never a prompt."""
