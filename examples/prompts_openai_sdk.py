"""Ask with a prompt that the installation keeps, by the openai package.

    pip install openai
    export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=plt_live_...
    pilotage prompts create greeting --text 'Greet {{ name }} in one sentence.'
    python prompts_openai_sdk.py smollm2 greeting 1.0.0 Ada

The responses API of the package knows prompts; a chat is told of them in ``extra_body``.
"""

import sys

from openai import APIStatusError, OpenAI


def main(model: str, prompt: str = "greeting", version: str = "1.0.0", name: str = "Ada") -> int:
    """Ask on both wires; 1 if the gateway refuses."""
    client = OpenAI(max_retries=0)
    try:
        raw = client.responses.with_raw_response.create(
            model=model,
            prompt={"id": prompt, "version": version, "variables": {"name": name}},
            max_output_tokens=64,
        )
        print("answer:", raw.parse().output_text)
        print("prompt:", raw.headers["x-pilotage-prompt"])
        chat = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "In Latin, please."}],
            max_tokens=64,
            extra_body={"prompt": {"id": f"{prompt}@{version}", "variables": {"name": name}}},
        )
        print("in a chat:", chat.choices[0].message.content)
    except APIStatusError as refused:
        print(f"refused: {refused.status_code} {refused.code}: {refused.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
