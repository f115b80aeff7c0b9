from edgefn.metrics import Metrics


def test_a_reason_is_the_last_part_of_a_name_and_the_total_is_their_sum():
    metrics = Metrics()
    metrics.count("events.failed", reason="bad_json")
    metrics.count("events.failed", 2, reason="not_utf8")
    metrics.count("events.failedish")
    assert metrics.counters["events.failed.bad_json"] == 1
    assert metrics.total("events.failed") == 3


def test_names_made_from_outside_input_do_not_fill_the_memory():
    metrics = Metrics(max_names=2)
    for name in "abcd":
        metrics.count(name)
        metrics.gauge(name, 1.0)
    metrics.count("a")
    assert metrics.counters["a"] == 2
    assert set(metrics.gauges) == {"a", "b"}
    assert metrics.counters["metrics.overflow"] == 4


def test_what_one_process_takes_another_merges():
    engine, gateway = Metrics(), Metrics()
    for n in (3, 4):
        engine.count("events.in", n)
        engine.count("events.late", 0)
        told = engine.take()
        assert told == {"events.in": n}
        gateway.merge(told)
    assert gateway.counters["events.in"] == 7
    assert engine.take() == {}
