"""What both planes share: pure types and rules. Standard library and msgspec only; no I/O, no clock."""
