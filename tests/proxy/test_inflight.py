from __future__ import annotations

from dataclasses import dataclass

from proxy.exchange import Exchange
from proxy.inflight import InFlight


@dataclass
class Body:
    total_bytes: int = 0


def exchange_with(instance: str) -> Exchange:
    exchange = Exchange(None)
    exchange.instance = instance
    return exchange


def test_use_ends_with_the_last_byte_and_observing_is_no_use() -> None:
    in_flight = InFlight()
    used, observed = exchange_with("used"), exchange_with("observed")
    observed.is_use = False
    in_flight.begin(used)
    in_flight.begin(observed)
    report = in_flight.report(1)
    assert report.in_flight == {"used": 1, "observed": 1}
    assert report.looking == {"observed": 1}
    assert report.last_used == {}
    used.response = Body(total_bytes=5)
    moved = in_flight.report(1).last_used["used"]
    # It should keep the time: no byte has come since.
    assert in_flight.report(1).last_used["used"] == moved
    in_flight.end(used)
    in_flight.end(observed)
    after = in_flight.report(1)
    assert after.in_flight == {}
    assert list(after.last_used) == ["used"]
    assert after.last_used["used"] >= moved


def test_messages_of_a_websocket_are_use() -> None:
    in_flight, exchange = InFlight(), exchange_with("used")
    in_flight.begin(exchange)
    assert in_flight.report(1).last_used == {}
    exchange.bytes_to_client += 1
    assert list(in_flight.report(1).last_used) == ["used"]


def test_requests_to_one_instance_are_counted_together() -> None:
    in_flight = InFlight()
    exchanges = [exchange_with("a") for _ in range(3)]
    for exchange in exchanges:
        in_flight.begin(exchange)
    assert in_flight.count("a") == 3
    in_flight.end(exchanges.pop())
    assert in_flight.report(1).in_flight == {"a": 2}
