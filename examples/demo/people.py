"""People who ask questions, know the answers, and say whether they got them."""

import asyncio
import random
import time
from dataclasses import dataclass

import httpx

LONGEST = 16  # tokens of an answer
QUESTIONS = {
    "What is the capital of France?": "paris",
    "What is the capital of Italy?": "rome",
    "What is the capital of Spain?": "madrid",
    "What is the capital of Germany?": "berlin",
    "What is the capital of Japan?": "tokyo",
    "What is the capital of Egypt?": "cairo",
    "What is the capital of England?": "london",
    "What is the opposite of hot?": "cold",
    "How many days are in a week?": "7",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a question: when (monotonic, s), who answered, and whether it was right."""

    at_s: float
    model: str
    status: int
    code: str
    is_right: bool
    text: str


class People:
    """So many people; each asks again when they have an answer, and scores it 1 or 0.

    ``pause_s`` is how long they wait before they do.
    """

    def __init__(self, url: str, key: str, endpoint: str, count: int) -> None:
        self._url = url
        self._key = key
        self._endpoint = endpoint
        self._count = count
        self.pause_s = 1.0
        self._random = random.Random(7)  # noqa: S311 - nothing is secret here
        self.answers: list[Answer] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        async with (
            httpx.AsyncClient(
                base_url=self._url,
                headers={"authorization": f"Bearer {self._key}"},
                timeout=60,
                trust_env=False,
            ) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(self._count):
                tasks.create_task(self._keep_asking(http))

    async def _keep_asking(self, http: httpx.AsyncClient) -> None:
        while True:
            reply, answer = await ask(http, self._endpoint, self._random.choice(list(QUESTIONS)))
            self.answers.append(answer)
            if answer.status == httpx.codes.OK:
                said = {"request_id": reply.headers["x-request-id"], "score": int(answer.is_right)}
                await http.post("/v1/feedback", json=said)
            await asyncio.sleep(self.pause_s)

    def count_right(self, model: str) -> tuple[int, int]:
        """Return how many answers of a model were right, and how many there were."""
        marks = [answer.is_right for answer in self.answers if answer.model.endswith(model)]
        return sum(marks), len(marks)

    def find_example(self, model: str) -> str:
        """Return something that a model said, "" if it was never asked."""
        return next((each.text for each in self.answers if each.model.endswith(model)), "")


async def ask(
    http: httpx.AsyncClient, endpoint: str, question: str
) -> tuple[httpx.Response, Answer]:
    """Ask one question."""
    body = {
        "model": endpoint,
        "messages": [{"role": "user", "content": f"{question} Answer in one sentence."}],
        "temperature": 0,
        "max_tokens": LONGEST,
    }
    reply = await http.post("/v1/chat/completions", json=body)
    content, text, code = reply.json(), "", ""
    if reply.is_success:
        text = str(content["choices"][0]["message"]["content"])
    else:
        code = str(content["error"]["code"])
    return reply, Answer(
        at_s=time.monotonic(),
        model=reply.headers.get("x-pilotage-model-version", ""),
        status=reply.status_code,
        code=code,
        is_right=QUESTIONS[question] in text.lower(),
        text=text,
    )
