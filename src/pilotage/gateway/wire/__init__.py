"""The wires that calls come in by and go out by, as msgspec Structs."""
