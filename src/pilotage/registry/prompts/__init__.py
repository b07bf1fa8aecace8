"""Prompts: versioned templates, and the labels that say which version is used."""
