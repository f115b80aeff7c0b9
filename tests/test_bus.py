import asyncio
import contextlib
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from edgefn.broker import PrivateBroker
from edgefn.bus import (
    Backoff,
    BrokerAddress,
    Bus,
    Message,
    Properties,
    PublishRefusedError,
    TlsFiles,
)
from edgefn.bus.properties import from_paho
from edgefn.errors import AccessError, ConfigError, NotConnectedError, TopicError
from edgefn.metrics import Metrics
from tests.broker import make_broker, write_passwords

SOON = Backoff(base=0.02, cap=0.02)
CONNACK = b"\x20\x02\x00\x00"
NOBODY = BrokerAddress("127.0.0.1", 1)


@contextlib.asynccontextmanager
async def joined(broker: PrivateBroker, **options: Any) -> AsyncIterator[Bus]:
    async with Bus(BrokerAddress(broker.host, broker.port), backoff=SOON, **options) as bus:
        await bus.wait_connected(5)
        yield bus


async def take(messages: AsyncIterator[Message], n: int) -> list[Message]:
    async with asyncio.timeout(5):
        return [await anext(messages) for _ in range(n)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


class TestAddresses:
    def test_a_password_is_not_shown(self):
        assert "secret" not in repr(BrokerAddress("there", username="me", password="secret"))

    def test_a_tls_file_that_is_missing_is_named(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"tls\.ca = .*none\.pem"):
            Bus(BrokerAddress(tls=TlsFiles(ca=str(tmp_path / "none.pem"))))

    def test_a_kept_session_needs_a_name(self):
        with pytest.raises(ConfigError, match="client_id"):
            Bus(NOBODY, clean=False)


class TestBackoff:
    @given(st.integers(0, 10_000), st.floats(0.01, 10), st.floats(0.01, 100))
    def test_stays_between_zero_and_the_cap(self, attempt: int, base: float, cap: float):
        assert 0 <= Backoff(base, cap).delay(attempt) <= cap

    def test_starts_small(self):
        assert max(Backoff(base=0.5).delay(0) for _ in range(100)) <= 0.5


def in_a_property(size: int) -> st.SearchStrategy[str]:
    # MQTT 5, 1.5.4: no U+0000; and surrogates are no UTF-8.
    return st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=size)


class TestProperties:
    @given(
        st.builds(
            Properties,
            response_topic=st.none() | in_a_property(20),
            correlation_data=st.none() | st.binary(max_size=200),
            user=st.lists(st.tuples(in_a_property(9), in_a_property(9)), max_size=9).map(tuple),
            message_expiry=st.none() | st.integers(0, 2**32 - 1),
            content_type=st.none() | in_a_property(20),
        )
    )
    def test_paho_reads_what_we_pack(self, properties: Properties):
        packed = properties.pack()
        theirs = PahoProperties(PacketTypes.PUBLISH)
        _, length = theirs.unpack(packed)
        assert length == len(packed)
        assert (from_paho(theirs) or Properties()) == properties

    def test_one_that_is_too_long_is_refused(self):
        with pytest.raises(ValueError, match="a property of 65536 bytes"):
            Properties(content_type="x" * 65536).pack()


class TestWithoutABroker:
    async def test_qos_0_is_dropped_and_counted(self):
        async with Bus(NOBODY) as bus:
            await bus.publish("a/b", "1")
            assert bus.metrics.counters["bus.dropped.offline"] == 1

    async def test_qos_1_is_the_callers_to_repeat(self):
        async with Bus(NOBODY) as bus:
            with pytest.raises(NotConnectedError, match="a/b"):
                await bus.publish("a/b", "1", qos=1)

    async def test_waiting_says_where_and_why(self):
        async with Bus(NOBODY) as bus:
            await until(lambda: "refused" in str(bus._trouble))
            with pytest.raises(NotConnectedError, match=r"127\.0\.0\.1:1: .*refused; is the broker running"):
                await bus.wait_connected(0)

    async def test_the_same_trouble_is_told_once(self, caplog: pytest.LogCaptureFixture):
        with caplog.at_level(logging.WARNING):
            async with Bus(NOBODY, backoff=Backoff(0.001, 0.001)):
                await asyncio.sleep(0.1)
        assert len(caplog.records) == 1

    async def test_remembered_topics_are_bounded(self):
        async with Bus(NOBODY) as bus:
            for n in range(1001):
                await bus.publish(f"t/{n}", "1", retain=True)
            assert bus.metrics.counters["bus.dropped.retained_full"] == 1

    async def test_closing_twice_is_harmless_and_ends_iterations(self):
        bus = Bus(NOBODY)
        async with bus, bus.subscribe("a") as messages:
            await bus.close()
            await bus.close()
            assert [message async for message in messages] == []

    @pytest.mark.parametrize(("topic", "qos", "error"), [("a/#", 0, TopicError), ("a", 2, ValueError)])
    async def test_what_cannot_be_published_is_refused(self, topic: str, qos: int, error: type[Exception]):
        async with Bus(NOBODY) as bus:
            with pytest.raises(error):
                await bus.publish(topic, "1", qos=qos)

    async def test_properties_need_mqtt_5(self):
        async with Bus(NOBODY) as bus:
            with pytest.raises(ValueError, match="protocol 5"):
                await bus.publish("a", "1", properties=Properties(response_topic="b"))

    async def test_a_full_queue_gives_up_its_oldest(self):
        async with Bus(NOBODY) as bus, bus.subscribe("a/{x}", max_queue=2) as messages:
            for n in range(5):
                bus._deliver(Message(f"a/{n}", b""))
            bus._deliver(Message("elsewhere", b""))
            assert [message.topic for message in await take(messages, 2)] == ["a/3", "a/4"]
            assert bus.metrics.counters["bus.dropped.queue_full"] == 3


@contextlib.asynccontextmanager
async def scripted(*connections: tuple[bytes, ...]) -> AsyncIterator[BrokerAddress]:
    """A broker that gives these answers to the packets of its first, second … connection, and then only listens."""
    scripts = iter(connections)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in next(scripts, ()):
            _, length = await reader.readexactly(2)
            await reader.readexactly(length)
            writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])


class TestWithAScriptedBroker:
    """What mosquitto does not do."""

    async def test_a_refused_subscription_raises(self):
        suback = b"\x90\x03\x00\x01\x80"
        async with scripted((CONNACK, suback)) as address, Bus(address) as bus:
            await bus.wait_connected(5)
            with pytest.raises(AccessError, match=r"closed/a.*ACL"):
                await bus.subscribe("closed/a").__aenter__()
            assert bus.metrics.counters["bus.subscribe_refused"] == 1

    async def test_the_brokers_receive_maximum_bounds_the_window(self):
        two = b"\x20\x06\x00\x00\x03\x21\x00\x02"
        async with scripted((two,)) as address, Bus(address, protocol="5") as bus:
            await bus.wait_connected(5)
            publishing = [asyncio.create_task(bus.publish("a", "1", qos=1)) for _ in range(5)]
            await asyncio.sleep(0)
            assert bus._connection is not None
            assert len(bus._connection._unacknowledged) == 2
            for task in publishing:
                task.cancel()

    async def test_a_message_refused_for_good_says_why(self):
        connack, puback = b"\x20\x03\x00\x00\x00", b"\x40\x03\x00\x01\x97"
        async with scripted((connack, puback)) as address, Bus(address, protocol="5") as bus:
            await bus.wait_connected(5)
            with pytest.raises(PublishRefusedError, match="Quota exceeded") as refused:
                await bus.publish("a", "1", qos=1)
            assert refused.value.code == 0x97
            assert bus.connected.is_set()

    @pytest.mark.parametrize("later", [False, True], ids=["with the CONNACK", "later"])
    async def test_garbage_ends_the_connection_and_not_the_bus(self, later: bool, caplog: pytest.LogCaptureFixture):
        garbage = b"\xff\xff\xff\xff\xff\xff"
        first = (CONNACK, garbage) if later else (CONNACK + garbage,)
        suback = b"\x90\x03\x00\x01\x00"
        async with scripted(first, (CONNACK, suback)) as address, Bus(address, backoff=SOON) as bus, bus.subscribe("a"):
            await until(lambda: "connection lost: Protocol error" in caplog.text)
            await until(bus.connected.is_set)
            assert bus._connection is not None
            assert not bus._connection.lost.done()


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
class TestWithABroker:
    async def test_messages_arrive_in_order(self, mosquitto: PrivateBroker, protocol: Any):
        async with joined(mosquitto, protocol=protocol) as bus, bus.subscribe("order/+", qos=1) as messages:
            for n in range(1000):
                await bus.publish("order/0", str(n))
            got = await take(messages, 1000)
            assert [int(message.payload) for message in got] == list(range(1000))

    async def test_a_window_of_qos_1_messages_is_acknowledged_each(self, mosquitto: PrivateBroker, protocol: Any):
        narrow = joined(mosquitto, protocol=protocol, window=20)
        async with narrow as bus, bus.subscribe("window", qos=1) as messages:
            await asyncio.gather(*(bus.publish("window", str(n), qos=1) for n in range(500)))
            got = await take(messages, 500)
            assert [int(message.payload) for message in got] == list(range(500))

    async def test_a_cancelled_publish_gives_its_place_back(self, mosquitto: PrivateBroker, protocol: Any):
        async with joined(mosquitto, protocol=protocol, window=1) as bus:
            for _ in range(3):
                publishing = asyncio.create_task(bus.publish("cancelled", "1", qos=1))
                await asyncio.sleep(0)
                publishing.cancel()
                await asyncio.wait({publishing})
            async with asyncio.timeout(5):
                await bus.publish("cancelled", "2", qos=1)

    async def test_a_large_message_arrives_whole(self, mosquitto: PrivateBroker, protocol: Any):
        payload = bytes(range(256)) * 8192
        async with joined(mosquitto, protocol=protocol) as bus, bus.subscribe("large", qos=1) as messages:
            await bus.publish("large", payload, qos=1)
            assert (await take(messages, 1))[0].payload == payload

    async def test_connects_again_subscribes_again_and_restores_retained(
        self, mortal_mosquitto: PrivateBroker, protocol: Any
    ):
        connections: list[None] = []

        async def note() -> None:
            connections.append(None)

        metrics = Metrics()
        async with joined(mortal_mosquitto, protocol=protocol, metrics=metrics) as bus:
            bus.on_connect.append(note)
            async with bus.subscribe("again/#", qos=1) as messages:
                await bus.publish("again/status", "old", retain=True)
                await bus.publish("again/gone", "x", retain=True)
                await take(messages, 2)
                mortal_mosquitto.kill()
                await until(lambda: not bus.connected.is_set())
                await bus.publish("again/status", "new", retain=True)
                await bus.publish("again/gone", "", retain=True)
                mortal_mosquitto.restart()
                await bus.wait_connected(5)
                assert ("again/status", b"new") in [(m.topic, m.payload) for m in await take(messages, 2)]
                await until(lambda: connections == [None])
        async with joined(mortal_mosquitto) as fresh, fresh.subscribe("again/#") as messages:
            (only,) = await take(messages, 1)
            assert (only.payload, only.retain) == (b"new", True)

    async def test_a_lost_connection_fails_what_waits_for_it(self, mortal_mosquitto: PrivateBroker, protocol: Any):
        async with joined(mortal_mosquitto, protocol=protocol, window=2) as bus:
            waiting = [asyncio.create_task(bus.publish("lost", str(n), qos=1)) for n in range(10)]
            await asyncio.sleep(0)
            mortal_mosquitto.kill()
            done, pending = await asyncio.wait(waiting, timeout=5)
            assert not pending
            assert all(isinstance(task.exception(), NotConnectedError | None) for task in done)
            assert any(task.exception() for task in done)


@pytest.mark.integration
class TestSessions:
    async def test_properties_make_the_round_trip(self, mosquitto: PrivateBroker):
        sent = Properties("reply/to", b"\x01\x02", (("id", "7"),))
        async with joined(mosquitto, protocol="5") as bus, bus.subscribe("asked") as messages:
            await bus.publish("asked", "?", properties=sent)
            assert (await take(messages, 1))[0].properties == sent

    @pytest.mark.parametrize("protocol", ["3.1.1", "5"])
    async def test_a_kept_session_receives_what_it_missed(self, mosquitto: PrivateBroker, protocol: Any):
        name = f"keeps-{protocol}"
        keeping = joined(mosquitto, client_id=name, clean=False, protocol=protocol)
        async with keeping as bus, bus.subscribe(f"kept/{name}", qos=1):
            await bus.close()  # before the subscription ends, so that it stays with the broker
        async with joined(mosquitto) as other:
            await other.publish(f"kept/{name}", "missed", qos=1)
        later = Bus(BrokerAddress(mosquitto.host, mosquitto.port), client_id=name, clean=False, protocol=protocol)
        async with later.subscribe(f"kept/{name}", qos=1) as messages, later:
            assert (await take(messages, 1))[0].payload == b"missed"

    async def test_a_clean_close_writes_what_was_handed_over_and_keeps_the_will_back(self, mosquitto: PrivateBroker):
        async with joined(mosquitto) as watcher, watcher.subscribe("last/#") as messages:
            async with joined(mosquitto, will=Message("last/will", b"died")) as bus:
                for n in range(200):
                    await bus.publish("last/words", str(n))
            got = await take(messages, 200)
            await watcher.publish("last/end", "")
            assert {message.topic for message in got} == {"last/words"}
            assert (await take(messages, 1))[0].topic == "last/end"

    async def test_the_will_is_published_when_the_connection_dies(self, mosquitto: PrivateBroker):
        mortal = joined(mosquitto, will=Message("will", b"died", 1))
        async with joined(mosquitto) as watcher, watcher.subscribe("will") as messages, mortal as bus:
            assert bus._connection is not None
            bus._connection.close()
            assert (await take(messages, 1))[0].payload == b"died"

    async def test_a_lost_connection_is_known_at_once(self, mosquitto: PrivateBroker):
        """Else `publish` and `connected.wait()` in turn would never let the event loop run."""
        async with joined(mosquitto) as bus:
            assert bus._connection is not None
            bus._connection.close()
            assert not bus.connected.is_set()
            with pytest.raises(NotConnectedError):
                await bus.publish("a", "1", qos=1)
            async with asyncio.timeout(5):
                await bus.connected.wait()
                await bus.publish("a", "1", qos=1)

    async def test_an_exception_in_a_callback_is_told_and_the_bus_lives_on(
        self, mosquitto: PrivateBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        async with joined(mosquitto) as bus, bus.subscribe("boom") as messages:
            with monkeypatch.context() as patch:
                patch.setattr(messages, "_offer", lambda message: 1 / 0)
                await bus.publish("boom", "1")
                await until(lambda: bus.metrics.counters["bus.failed.ZeroDivisionError"] == 1)
            assert "a bug while packets were read" in caplog.text
            await until(bus.connected.is_set)
            await bus.publish("boom", "2")
            assert (await take(messages, 1))[0].payload == b"2"

    async def test_a_failing_hook_is_told_and_harms_nothing(
        self, mosquitto: PrivateBroker, caplog: pytest.LogCaptureFixture
    ):
        async def fails() -> None:
            raise RuntimeError("no")

        bus = Bus(BrokerAddress(mosquitto.host, mosquitto.port))
        bus.on_connect.append(fails)
        async with bus:
            await until(lambda: bus.metrics.counters["bus.failed.on_connect"] == 1)
            assert bus.connected.is_set()
            assert "after connecting failed" in caplog.text


@pytest.mark.integration
class TestAccess:
    @pytest.mark.parametrize("protocol", ["3.1.1", "5"])
    async def test_a_wrong_password_is_told_once_and_tried_again_slowly(
        self, tmp_path: Path, protocol: Any, caplog: pytest.LogCaptureFixture
    ):
        make_broker()  # skips where mosquitto is missing
        passwords = write_passwords(tmp_path / "passwords", {"pump": "right"})
        with make_broker(passwords=passwords) as broker:
            wrong = BrokerAddress(broker.host, broker.port, "pump", "wrong")
            async with Bus(wrong, protocol=protocol, access_backoff=SOON) as bus:
                with pytest.raises(AccessError, match=rf"{broker.port}: .*'pump'.*username and password"):
                    await bus.wait_connected(5)
                await asyncio.sleep(0.1)
                told = [record.levelname for record in caplog.records if record.name.startswith("edgefn.bus")]
                assert told == ["ERROR"]
            right = BrokerAddress(broker.host, broker.port, "pump", "right")
            async with Bus(right, protocol=protocol) as bus:
                await bus.wait_connected(5)

    def make_certificate(self, folder: Path) -> tuple[Path, Path]:
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl to make a certificate")
        key, cert = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        return key, cert

    async def test_over_a_unix_socket(self, tmp_path: Path):
        path = tmp_path / "mqtt.sock"
        with make_broker(config=[f"listener 0 {path}", "allow_anonymous true"]):
            async with Bus(BrokerAddress(unix=str(path))) as bus:
                await bus.wait_connected(5)
                await bus.publish("unix", "1", qos=1)

    async def test_over_tls(self, tmp_path: Path):
        key, cert = self.make_certificate(tmp_path)
        with make_broker() as finder:
            port = finder.port  # free again below
        tls = [f"listener {port} 127.0.0.1", f"certfile {cert}", f"keyfile {key}", "allow_anonymous true"]
        with make_broker(config=tls):
            async with Bus(BrokerAddress("127.0.0.1", port, tls=TlsFiles(ca=str(cert)))) as bus:
                await bus.wait_connected(5)
                async with bus.subscribe("tls/#", qos=1) as messages:
                    await asyncio.gather(*(bus.publish("tls/a", "x" * 3000, qos=1) for _ in range(100)))
                    await take(messages, 100)  # several packets in one record, and packets over several records
            async with Bus(BrokerAddress("127.0.0.1", port, tls=TlsFiles())) as bus:
                with pytest.raises(AccessError, match=r"not trusted.*tls\.ca"):
                    await bus.wait_connected(5)
