"""Engines: programs that serve a model file over HTTP, one folder each."""
