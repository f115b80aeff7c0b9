"""What the benchmarks send and count: sizes of payloads, frames, the null reader, and the arithmetic of costs."""

from __future__ import annotations

import json

import pytest

from bench.curves import account, cpu_curve, rate_curves
from bench.load import Generator, Sent, Spec
from bench.null_reader import NullReader, frame_length, null_rate
from bench.throughput import Pair, Run, peer_of, per_million
from bench.wire import publish
from bench.workload import json_frames, sized_frames, sized_payload

SENT = Sent(0, 1, 100, 0.5)


def ours(seconds: float, cpu: float, lost: int = 0) -> Run:
    return Run(1_000, seconds, SENT, {"engine": cpu, "broker": 1.0, "generator": 0.5}, cpu * 2, lost)


def theirs(seconds: float) -> Run:
    return Run(1_000, seconds, SENT, {"mosquitto_sub": 2.0, "broker": 1.0, "generator": 0.5})


@pytest.mark.parametrize("size", [20, 21, 34, 35, 36, 41, 42, 43, 200, 2_000, 20_000, 100_000])
def test_a_sized_payload_has_its_size_and_is_json(size: int) -> None:
    for i in range(10):
        payload = sized_payload(size, i)
        assert len(payload) == size
        assert 18 <= json.loads(payload)["temperature"] < 27


def test_sized_frames_are_as_many_as_asked_for() -> None:
    assert [len(frame) for frame in sized_frames("t/{}", 3, 20)] == [len(publish("t/room00", b"x" * 20))] * 3


def test_events_go_round_the_keys_and_step_through_sensor_time() -> None:
    frames = list(json_frames("t/{}", 5, 0, keys=2, start=1_000, step=10))
    assert [b"room00" in frame for frame in frames] == [True, False, True, False, True]
    assert [json.loads(frame[frame.index(b"{") :])["ts"] for frame in frames] == [1000, 1010, 1020, 1030, 1040]


@pytest.mark.parametrize("size", [1, 100, 127, 128, 20_000, 3_000_000])
def test_the_length_of_a_frame_is_read_from_its_header(size: int) -> None:
    frame = publish("a/b", b"x" * size)
    assert frame_length(frame + frame) == len(frame)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="no MQTT packet"):
        frame_length(b"\x30\xff\xff\xff\xff\x01")


def test_the_peer_gets_the_same_load_on_topics_of_its_own() -> None:
    assert peer_of(Spec(1, "bench/{}/climate", 5, mark=3)) == Spec(1, "peers/{}/climate", 5)


@pytest.mark.parametrize("qos", [0, 1])
def test_the_null_reader_gets_all_that_the_generator_sends(qos: int) -> None:
    with NullReader(qos) as reader:
        with Generator(Spec(reader.port, "bench/{}/climate", 3_000, qos=qos)) as generator:
            generator.go()
            sent = generator.result()
        reader.join()
    assert reader.bytes == sent.bytes == sum(map(len, json_frames("bench/{}/climate", 3_000, qos)))
    assert reader.ended >= sent.started


def test_a_rate_into_the_null_reader_is_that_of_a_load() -> None:
    assert null_rate(Spec(0, "bench/{}/climate", 1_000, mark=1), 1) > 1_000


def test_costs_are_medians_for_a_million() -> None:
    runs = [ours(1, 0.001), ours(1, 0.002), ours(1, 0.009)]
    assert per_million(runs) == {"engine": 2.0, "broker": 1_000.0, "generator": 500.0}


def test_a_pair_compares_medians_and_adds_up_losses() -> None:
    pair = Pair([ours(1, 1, 5), ours(2, 2), ours(4, 3, -2)], [theirs(1), theirs(1), theirs(5)], alone=4_000.0)
    assert (pair.rate, pair.peer_rate, pair.cpu, pair.lost) == (500, 1_000, 2_000, 7)
    assert pair.account() == "7 of 3,000 not counted once"
    assert pair.margin == "the load generator alone makes 4,000/s, 4.0 times as much"


def test_the_rows_of_costs_leave_the_generator_out_of_the_sum() -> None:
    pair = Pair([ours(1, 1)], [theirs(1)], {"engine": 30 << 20, "edgefn run": 10 << 20, "broker at most": 5 << 20})
    cpu, memory = pair.costs("QoS 0")
    assert cpu.value == 2_000
    assert "mosquitto_sub 2e+03" not in cpu.peer
    assert "mosquitto_sub 2,000" in cpu.peer
    assert memory.value == 40
    assert memory.note == "engine 30, edgefn run 10, broker at most 5"


def test_curves_have_the_median_and_the_ends_of_each_size() -> None:
    pairs = {1: Pair([ours(1, 1), ours(2, 2), ours(4, 4)], [theirs(1)]), 10: Pair([ours(1, 1, 3)], [theirs(2)])}
    assert cpu_curve("engine", pairs).points == ((1, 2_000, 1_000, 4_000), (10, 1_000, 1_000, 1_000))
    gateway, peer = rate_curves(pairs)
    assert gateway.points[0] == (1, 500, 250, 1_000)
    assert peer.points == ((1, 1_000, 1_000, 1_000), (10, 500, 500, 500))
    assert account(pairs) == "lost 3 at 10"
    assert account({1: pairs[1]}) == "none lost"
