"""What an API key may be used for: which aliases, and which operations of the gateway.

Keys of the same scope share one entry of the Snapshot's section, which their records point at by
its number; 0 is the scope without bounds, and has none.
"""

from collections.abc import Mapping

import msgspec

KEY_SCOPES = "key-scopes"  # the section's name in a Snapshot
CHAT, COMPLETIONS, EMBEDDINGS = "chat", "completions", "embeddings"
MESSAGES, RESPONSES, MODELS, USAGE = "messages", "responses", "models", "usage"
FEEDBACK = "feedback"
OPERATIONS = (CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, MODELS, USAGE, FEEDBACK)


class KeyScope(msgspec.Struct, frozen=True):
    """The aliases and operations that a key is for; an empty list bounds nothing."""

    aliases: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()

    def has_operation(self, operation: str) -> bool:
        """Say whether the key is for an operation."""
        return not self.operations or operation in self.operations

    def has_alias(self, alias: str) -> bool:
        """Say whether the key is for an alias."""
        return not self.aliases or alias in self.aliases


UNBOUNDED = KeyScope()
NOTHING = KeyScope(operations=("",))  # of a key whose scope is not known


def encode_scope(scope: KeyScope) -> str:
    """Return the text that stands for a scope; the same for the same scope in any order."""
    plain = KeyScope(tuple(sorted(set(scope.aliases))), tuple(sorted(set(scope.operations))))
    return msgspec.json.encode(plain).decode()


def decode_scope(text: str) -> KeyScope:
    """Read the text of a scope."""
    return msgspec.json.decode(text, type=KeyScope)


def pack_scopes(scopes: Mapping[int, KeyScope]) -> bytes:
    """Return the section of scopes by number."""
    return msgspec.msgpack.encode(dict(sorted(scopes.items())))


def unpack_scopes(section: bytes) -> dict[int, KeyScope]:
    """Read the section of scopes; raise ValueError if it is none."""
    try:
        return msgspec.msgpack.decode(section, type=dict[int, KeyScope])
    except msgspec.DecodeError as broken:
        raise ValueError(f"not a section of key scopes: {broken}") from broken
