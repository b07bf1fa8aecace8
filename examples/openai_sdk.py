"""Ask a model through the gateway with the openai package, plain and streamed.

    pip install openai
    export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=plt_live_...
    python openai_sdk.py smollm2

Nothing here knows of Pilotage: the package reads address and key from those two variables.
"""

import sys

from openai import APIStatusError, OpenAI

QUESTION = "What is the capital of France? Answer in one sentence."


def main(model: str) -> int:
    """Ask twice; 1 if the gateway refuses."""
    client = OpenAI(max_retries=0)  # the gateway retries, with a budget for all of its clients
    try:
        ask(client, model)
        ask_streamed(client, model)
    except APIStatusError as refused:
        print(f"refused: {refused.status_code} {refused.code}: {refused.message}", file=sys.stderr)
        return 1
    return 0


def ask(client: OpenAI, model: str) -> None:
    """Print an answer, and what the gateway says of the call in its headers."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=64,
    )
    print("answer:", raw.parse().choices[0].message.content)
    for header in ("x-request-id", "x-pilotage-cost-usd", "x-pilotage-overhead-ms"):
        print(f"{header}: {raw.headers[header]}")


def ask_streamed(client: OpenAI, model: str) -> None:
    """Print an answer as it comes, and its tokens."""
    print("streamed:", end=" ")
    with client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=64,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
            if chunk.usage is not None:
                print(f"\ntokens: {chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
