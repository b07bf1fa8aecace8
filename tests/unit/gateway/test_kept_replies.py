"""Kept replies come back as they were, to the right key and body; none is held in clear."""

from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.gateway.replies import KEPT_S, RUNNING_RETRY_S, KeptReplies, KeptReply
from pilotage.kit.clock import ManualClock


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


BODY, OTHER_BODY = key("body"), key("other body")


def refusal(replies: KeptReplies, name: str, body: bytes = BODY) -> PilotageError:
    with pytest.raises(PilotageError) as caught:
        replies.claim(key(name), body)
    return caught.value


def answer(replies: KeptReplies, name: str, reply: KeptReply | None) -> None:
    assert replies.claim(key(name), BODY) is None
    replies.keep(key(name), reply)


@given(
    st.builds(
        KeptReply,
        body=st.binary(),
        terminator=st.binary(),
        is_stream=st.booleans(),
        code=st.text(),
        detail=st.text(),
        param=st.none() | st.text(),
    )
)
def test_a_reply_comes_back_as_it_was(reply: KeptReply) -> None:
    replies = KeptReplies(ManualClock())
    answer(replies, "a", reply)
    assert replies.claim(key("a"), BODY) == reply
    assert replies.claim(key("a"), BODY) == reply


def test_a_key_is_of_one_request() -> None:
    replies = KeptReplies(ManualClock())
    assert replies.claim(key("a"), BODY) is None
    running, other = refusal(replies, "a"), refusal(replies, "a", OTHER_BODY)
    assert (running.code, running.retry_after_s) == ("conflict", RUNNING_RETRY_S)
    assert other.code == "idempotency_mismatch"
    replies.keep(key("a"), KeptReply(b"yes"))
    assert refusal(replies, "a", OTHER_BODY).code == "idempotency_mismatch"
    assert replies.claim(key("b"), OTHER_BODY) is None


def test_a_key_given_back_may_be_used_again() -> None:
    replies = KeptReplies(ManualClock())
    assert replies.claim(key("a"), BODY) is None
    replies.release(key("a"))
    assert replies.claim(key("a"), OTHER_BODY) is None


def test_replies_are_kept_for_a_while() -> None:
    clock = ManualClock()
    replies = KeptReplies(clock)
    answer(replies, "a", KeptReply(b"first"))
    clock.advance(KEPT_S - 1)
    assert replies.claim(key("a"), BODY) == KeptReply(b"first")
    clock.advance(1)
    assert replies.claim(key("a"), OTHER_BODY) is None
    assert replies.size == 0


def test_what_is_not_kept_is_not_answered_again() -> None:
    replies = KeptReplies(ManualClock())
    answer(replies, "a", None)
    refused = refusal(replies, "a")
    assert (refused.code, refused.retry_after_s) == ("conflict", None)
    assert "new idempotency key" in refused.hint


def test_bytes_are_bounded_and_the_oldest_replies_go_first() -> None:
    replies = KeptReplies(ManualClock(), max_bytes=4000)
    for n in range(10):
        answer(replies, str(n), KeptReply(bytes(1000)))
    assert replies.size <= 4000
    assert refusal(replies, "0").code == "conflict"  # known as answered, though its bytes are gone
    assert replies.claim(key("9"), BODY) == KeptReply(bytes(1000))


def test_entries_are_bounded() -> None:
    replies = KeptReplies(ManualClock(), max_replies=3)
    for n in range(5):
        answer(replies, str(n), KeptReply(b"x"))
    assert replies.claim(key("1"), BODY) is None
    assert replies.claim(key("2"), BODY) == KeptReply(b"x")
    assert replies.size == sum(len(kept.sealed) for kept in replies._kept.values())


def test_nothing_is_held_in_clear_and_each_process_has_its_own_key() -> None:
    marker = b"the account number is 4711"
    one, other = KeptReplies(ManualClock()), KeptReplies(ManualClock())
    for replies in (one, other):
        answer(replies, "a", KeptReply(marker * 2))
    sealed = [replies._kept[key("a")].sealed for replies in (one, other)]
    assert all(marker not in each for each in sealed)
    assert sealed[0] != sealed[1]
    other._kept[key("a")] = one._kept[key("a")]
    with pytest.raises(InvalidTag):
        other.claim(key("a"), BODY)


def test_a_reply_opens_under_its_own_key_only() -> None:
    replies = KeptReplies(ManualClock())
    answer(replies, "a", KeptReply(b"of a"))
    answer(replies, "b", KeptReply(b"of b"))
    replies._kept[key("b")] = replies._kept[key("a")]
    with pytest.raises(InvalidTag):
        replies.claim(key("b"), BODY)
