"""Ask a model through the gateway with the anthropic package, plain and streamed.

    pip install anthropic
    export ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_API_KEY=plt_live_...
    python anthropic_sdk.py smollm2

The model need not be Anthropic's: the gateway translates where the wires differ.
"""

import sys

from anthropic import Anthropic, APIStatusError
from anthropic.types import MessageParam

QUESTION: MessageParam = {
    "role": "user",
    "content": "What is the capital of France? Answer in one sentence.",
}


def main(model: str) -> int:
    """Ask twice; 1 if the gateway refuses."""
    client = Anthropic(max_retries=0)  # the gateway retries, with a budget for all of its clients
    try:
        message = client.messages.create(model=model, max_tokens=64, messages=[QUESTION])
        print("answer:", "".join(block.text for block in message.content if block.type == "text"))
        print("tokens:", message.usage.input_tokens, "+", message.usage.output_tokens)
        print("streamed:", end=" ")
        with client.messages.stream(model=model, max_tokens=64, messages=[QUESTION]) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
            print(f"\nended: {stream.get_final_message().stop_reason}")
    except APIStatusError as refused:
        print(f"refused: {refused.status_code}: {refused.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
