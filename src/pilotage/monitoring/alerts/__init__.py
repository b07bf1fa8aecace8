"""Alert rules: written in the condition language, evaluated on the rollups."""
