"""The command line: ``pilotage``."""
