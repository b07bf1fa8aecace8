"""Who may do what: projects, tenants, API keys, administrators."""
