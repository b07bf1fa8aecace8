"""To a target and back: connections, pools, TLS, proxies, and how far a failed request came."""
