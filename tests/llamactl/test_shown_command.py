from __future__ import annotations

import pytest

from llamactl.masking import shown_command


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["a", "--model", "my model"], "a --model 'my model'"),
        (["a", "--api-key", "s3cret", "--port", "1"], "a --api-key *** --port 1"),
        (["a", "--api-key=s3cret"], "a --api-key=***"),
        (["a", "--hf-token", "-s3cret"], "a --hf-token ***"),
        (["a", "--api_key", "s3cret"], "a --api_key ***"),
        (["a", "--password", "--verbose"], "a --password --verbose"),
        (["docker", "-e", "HF_TOKEN=s3cret"], "docker -e HF_TOKEN=***"),
        (["docker", "-e", "HF_TOKEN"], "docker -e HF_TOKEN"),
        (["a", "--max-tokens", "5"], "a --max-tokens 5"),
        (["docker", "--env=HF_TOKEN=s3cret"], "docker --env=HF_TOKEN=***"),
        (["docker", "-e", "FOO=s3 cret"], "docker -e FOO=***"),
        (["docker", "-eFOO=s3cret"], "docker -eFOO=***"),
        (["a", "-hft", "s3cret"], "a -hft ***"),
        (["a", "--model-url", "https://u:s3cret@h/m"], "a --model-url 'https://u:***@h/m'"),
    ],
)
def test_what_sounds_like_a_secret_is_hidden(argv: list[str], shown: str) -> None:
    assert shown_command(argv) == shown
