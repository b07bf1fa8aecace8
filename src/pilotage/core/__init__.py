"""What both planes share: pure types and rules, on the standard library and msgspec alone."""
