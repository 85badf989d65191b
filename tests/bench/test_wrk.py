"""What wrk prints, read."""

from __future__ import annotations

import pytest

from bench import wrk

TOLD = """\
Running 3s test @ http://127.0.0.1:9400/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.10us  340.51us   7.21ms   78.04%
  Latency Distribution
     50%  804.00us
     90%    1.20ms
     99%    2.84ms
  209801 requests in 3.00s, 98.04MB read
{}Requests/sec:  69910.12
Transfer/sec:     32.67MB
"""


def test_rate_and_percentiles_are_read_in_one_unit() -> None:
    assert wrk.parse(TOLD.format("")) == (69910.12, 0.804, 2.84, "")


def test_refused_requests_are_told() -> None:
    assert wrk.parse(TOLD.format("  Non-2xx or 3xx responses: 12\n"))[3] == (
        "Non-2xx or 3xx responses: 12"
    )


def test_other_output_is_refused() -> None:
    with pytest.raises(ValueError, match="no rate"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")
