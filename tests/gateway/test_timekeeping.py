"""Gateway time over clocks that are right, late, set by hand, of 1970 and of 2106."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn import events
from edgefn.clock import EARLIEST, NS, STEP, is_plausible
from edgefn.errors import StoreError
from edgefn.gateway.timekeeping import CHECKPOINT, NOISE, Timekeeper
from edgefn.metrics import Metrics
from edgefn.store import Era
from edgefn.testing import ManualClock
from edgefn.trial.clock import START

HOUR = 3600 * NS
YEAR_1970, YEAR_2106 = 12 * NS, (1 << 32) * NS


@dataclass
class Service:
    synchronised: bool = False
    running: bool = True

    def is_synchronised(self) -> bool:
        return self.synchronised

    def is_running(self) -> bool:
        return self.running


@dataclass
class Memory:
    """What the store keeps over a restart, and whether it takes anything."""

    newest: int = 0
    eras: list[tuple[str, int, bool]] = field(default_factory=list)
    is_broken: bool = False

    async def begin_era(self, boot: str, offset: int, synced: bool) -> None:
        if self.is_broken:
            raise StoreError("the disk is full")
        self.eras.append((boot, offset, synced))

    async def newest_era(self) -> Era | None:
        return Era(1, *self.eras[-1]) if self.eras else None

    async def load_checkpoint(self, owner: str) -> dict[str, list[bytes]]:
        assert owner == CHECKPOINT
        return {owner: [events.pack({"now": self.newest})]} if self.newest else {}


@dataclass
class GatewayTime:
    offset: int = 0


class Machine:
    """A board that is started, with a clock to set; `now` is gateway time."""

    def __init__(self, *, says: int = START, memory: Memory | None = None, boot: str = "b1", **service: bool) -> None:
        self.system = ManualClock(says)
        self.system.advance("20s")  # since the kernel's start
        self.service = Service(**service)
        self.memory = memory or Memory()
        self.metrics = Metrics()
        self.time = GatewayTime()
        self.keeper = Timekeeper(self.time, self.metrics, boot=boot, system=self.system, service=self.service)

    async def start(self) -> Machine:
        await self.keeper.begin(self.memory)
        return self

    @property
    def now(self) -> int:
        return self.system.monotonic() + self.time.offset

    async def after(self, duration: str, *, step: str = "", says: int | None = None) -> int:
        """Lets time pass, sets the clock by `step` or to what it `says`, looks at it; returns how much gateway time jumped."""
        self.system.advance(duration)
        before = self.now
        if step:
            self.system.jump(step)
        if says is not None:
            self.system._now = says
        await self.keeper.check()
        return self.now - before

    @property
    def state(self) -> tuple[str, bool]:
        return self.keeper.state, self.keeper.is_right


async def test_a_synchronised_clock_is_followed_and_right_from_the_start() -> None:
    machine = await Machine(synchronised=True).start()
    assert machine.state == ("synced", True)
    assert machine.now == machine.system.now()
    assert await machine.after("1h") == 0
    assert len(machine.memory.eras) == 1
    await machine.keeper.wait_until_right(0)


async def test_a_machine_without_a_time_service_is_taken_as_it_is() -> None:
    """A container, a demo: nobody waits for anything."""
    machine = await Machine(running=False).start()
    assert machine.state == ("trusted", True)
    assert machine.now == machine.system.now()


@pytest.mark.parametrize("state", [{"synchronised": True}, {"running": False}])
@pytest.mark.parametrize("step", ["1h", "-1h"])
async def test_a_clock_that_is_set_is_followed_in_one_step(step: str, state: dict[str, bool]) -> None:
    machine = await Machine(**state).start()
    jumped = await machine.after("10s", step=step)
    assert jumped == (HOUR if step == "1h" else -HOUR)
    assert machine.now == machine.system.now()
    assert [synced for _, _, synced in machine.memory.eras] == [True, True]
    assert machine.metrics.counters == {f"clock.steps.{'forward' if step == '1h' else 'back'}": 1}
    assert machine.keeper.report() == {
        "state": machine.keeper.state, "right": True, "steps": 1, "last_step_s": jumped / NS,
    }  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.integers(-STEP + 2 * NOISE, STEP - 2 * NOISE), max_size=20))
async def test_small_corrections_are_followed_without_a_step(corrections: list[int]) -> None:
    machine = await Machine(synchronised=True).start()
    for ns in corrections:
        machine.system._now += ns
        await machine.after("1s")
        assert abs(machine.now - machine.system.now()) <= NOISE
    assert len(machine.memory.eras) == 1


@pytest.mark.parametrize("says", [YEAR_1970, YEAR_2106])
async def test_a_clock_that_breaks_is_not_followed(says: int) -> None:
    machine = await Machine(synchronised=True).start()
    right = machine.now
    assert await machine.after("10s", says=says) == 0
    assert machine.state == ("wrong", True)  # gateway time still is what it was set by
    assert machine.now == right + 10 * NS
    assert await machine.after("1h", says=right + HOUR + 10 * NS) == 0
    assert machine.state == ("synced", True)
    assert len(machine.memory.eras) == 1


@pytest.mark.parametrize("says", [YEAR_1970, YEAR_2106])
@pytest.mark.parametrize("known", [0, START])
async def test_a_boot_with_no_idea_of_the_time_goes_on_from_what_is_known(says: int, known: int) -> None:
    machine = await Machine(says=says, memory=Memory(newest=known), running=False).start()
    assert machine.state == ("wrong", False)
    assert machine.now == max(known, EARLIEST)
    await machine.after("10s")
    assert machine.now == max(known, EARLIEST) + 10 * NS


async def test_a_boot_in_1970_that_is_synchronised_later() -> None:
    machine = await Machine(says=YEAR_1970, memory=Memory(newest=START)).start()
    before = machine.time.offset
    assert machine.state == ("wrong", False)
    machine.service.synchronised = True
    jumped = await machine.after("30s", says=START + 8 * HOUR)
    assert machine.state == ("synced", True)
    assert machine.now == machine.system.now() == START + 8 * HOUR
    assert machine.memory.eras == [("b1", before, False), ("b1", before + jumped, True)]
    await machine.keeper.wait_until_right(0)


async def test_a_clock_restored_from_the_last_shutdown_does_not_take_time_back() -> None:
    """fake-hwclock has saved the time an hour before the power went, and the store has seen it later."""
    machine = await Machine(says=START - HOUR, memory=Memory(newest=START)).start()
    assert machine.state == ("waiting", False)
    assert machine.now == START
    assert await machine.after("10s") == 0
    machine.service.synchronised = True
    await machine.after("10s", says=START + 3 * HOUR)
    assert machine.state == ("synced", True)
    assert machine.now == START + 3 * HOUR


async def test_a_clock_that_was_right_all_along_is_confirmed_without_a_step() -> None:
    machine = await Machine().start()
    assert machine.state == ("waiting", False)
    machine.service.synchronised = True
    assert await machine.after("5s") == 0
    assert [synced for _, _, synced in machine.memory.eras] == [False, True]
    assert machine.keeper.report()["steps"] == 0


async def test_days_without_its_servers_do_not_make_a_clock_doubtful_but_setting_it_by_hand_does() -> None:
    machine = await Machine(synchronised=True).start()
    machine.service.synchronised = False  # the kernel says so after nine hours
    await machine.after("3d")
    assert machine.state == ("synced", True)
    assert await machine.after("1s", step="-1h") == -HOUR
    assert machine.state == ("waiting", False)
    machine.service.synchronised = True
    assert await machine.after("1s", step="1h") == HOUR
    assert machine.state == ("synced", True)


async def test_a_gateway_that_is_started_again_remembers_that_the_clock_was_right() -> None:
    first = await Machine(synchronised=True).start()
    again = Machine(memory=first.memory)
    await again.start()
    assert again.state == ("synced", True)
    other_boot = await Machine(memory=first.memory, boot="b2").start()
    assert other_boot.state == ("waiting", False)


async def test_a_gateway_that_is_started_again_under_a_broken_clock_goes_on_by_the_offset_of_before() -> None:
    first = await Machine(synchronised=True).start()
    again = Machine(says=YEAR_1970, memory=first.memory)
    again.system.advance("5s")
    await again.start()
    assert again.state == ("wrong", True)
    assert again.now == first.now + 5 * NS


async def test_patience_ends() -> None:
    machine = await Machine().start()
    await machine.keeper.wait_until_right(0)
    assert not machine.keeper.is_right


async def test_a_store_that_fails_does_not_hold_time_up_and_is_told_later() -> None:
    machine = await Machine().start()
    machine.memory.is_broken = machine.service.synchronised = True
    wrong = machine.time.offset
    assert await machine.after("1s", step="1h") == HOUR
    assert len(machine.memory.eras) == 1
    # The store still is in the era of before, which is not right and moves as a whole later on; what is right stays.
    assert machine.keeper.correction(wrong) == 0
    assert machine.keeper.correction(machine.time.offset) is None
    machine.memory.is_broken = False
    assert await machine.after("1s") == 0
    assert machine.memory.eras[-1] == ("b1", wrong + HOUR, True)
    assert machine.keeper.correction(wrong) == HOUR


async def test_rows_on_their_way_while_the_clock_is_set_are_put_right_where_it_was_wrong() -> None:
    machine = await Machine().start()
    doubtful = machine.time.offset
    await machine.after("1s", step="1h")
    assert machine.state == ("waiting", False)
    assert machine.keeper.correction(doubtful) == HOUR
    machine.service.synchronised = True
    await machine.after("1s", step="1h")
    right = machine.time.offset
    assert machine.keeper.correction(doubtful) == 2 * HOUR
    assert machine.keeper.correction(right + NS // 10) == 0
    await machine.after("1s", step="-1h")
    assert machine.keeper.correction(right) is None  # of a clock that was right: it stays as it is
    assert machine.keeper.correction(right - 24 * HOUR) is None  # of another boot


_moves: Any = st.lists(
    st.tuples(
        st.integers(0, 10**13),
        st.one_of(st.just(0), st.integers(-(10**13), 10**13), st.sampled_from([-(10**18), 10**18])),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(_moves, st.booleans())
async def test_whatever_the_clock_does_time_is_that_of_a_clock_to_believe_or_goes_on_by_itself(
    moves: Any, synchronised: bool
) -> None:
    machine = await Machine(synchronised=synchronised).start()
    for passes, jump, synced, running in moves:
        machine.system.advance(passes / NS)
        machine.system._now += jump
        machine.service.synchronised, machine.service.running = synced, running
        before = machine.now, machine.state
        await machine.keeper.check()
        # The era of what is stamped now is the last one that the store was told, up to corrections.
        _, offset, right = machine.memory.eras[-1]
        assert (abs(machine.time.offset - offset) < STEP, right) == (True, machine.keeper.is_right)
        if not is_plausible(machine.system.now()):
            assert (machine.now, machine.state) == (before[0], ("wrong", before[1][1]))
        elif machine.keeper.is_right:
            assert abs(machine.now - machine.system.now()) <= NOISE
        else:
            assert machine.now >= machine.system.now() - NOISE


async def test_no_era_begins_while_rows_are_stamped_and_stored() -> None:
    """They would be stamped by one gateway time and stored in the era of another, and stay wrong for ever."""
    machine = await Machine().start()
    before = machine.time.offset
    async with machine.keeper.steady:
        machine.service.synchronised = True
        looking = asyncio.create_task(machine.after("1s", step="1h"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(machine.memory.eras) == 1
        assert (machine.time.offset, machine.keeper.correction(before)) == (before, 0)
    await looking
    assert len(machine.memory.eras) == 2
    assert machine.keeper.correction(before) == machine.time.offset - before == HOUR
