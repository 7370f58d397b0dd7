"""The brake on guesses: for each address, for all together, and never on who is familiar or signed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sign_in_brake import MOST_ADDRESSES, OVERALL, PER_ADDRESS, SignInBrake


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def brake(clock: Clock) -> SignInBrake:
    return SignInBrake(clock)


def failures(brake: SignInBrake, address: str, most: int = 10_000) -> int:
    """How many keys are looked at before the brake says no."""
    return next((tries for tries in range(most) if brake.take(address)), most)


def test_an_address_has_some_failures_and_then_one_in_a_while(brake: SignInBrake, clock: Clock) -> None:
    assert failures(brake, "192.0.2.1") == PER_ADDRESS.burst
    assert brake.take("192.0.2.1") == PER_ADDRESS.every
    clock.now += PER_ADDRESS.every - 1
    assert brake.take("192.0.2.1") == 1
    clock.now += 1
    assert failures(brake, "192.0.2.1") == 1
    clock.now += 1_000_000
    assert failures(brake, "192.0.2.1") == PER_ADDRESS.burst


def test_one_address_does_not_hold_up_another(brake: SignInBrake) -> None:
    failures(brake, "192.0.2.1")
    assert brake.take("192.0.2.2") == 0


def test_a_key_that_is_known_takes_nothing(brake: SignInBrake) -> None:
    for _ in range(1_000):
        assert brake.take("192.0.2.1") == 0
        brake.succeeded("192.0.2.1")
    assert failures(brake, "192.0.2.1") == PER_ADDRESS.burst


def test_many_addresses_together_are_bounded_but_do_not_hold_up_a_familiar_one(brake: SignInBrake) -> None:
    assert brake.take("198.51.100.7") == 0
    brake.succeeded("198.51.100.7")
    assert sum(brake.take(f"192.0.{number // 250}.{number % 250}") == 0 for number in range(2_000)) == OVERALL.burst
    assert brake.take("203.0.113.9") > 0
    assert failures(brake, "198.51.100.7") == PER_ADDRESS.burst


def test_a_network_of_ipv6_is_one_client_and_a_mapped_address_the_one_it_maps(brake: SignInBrake) -> None:
    failures(brake, "2001:db8::1")
    assert brake.take("2001:db8::ffff:2") > 0
    assert brake.take("2001:db8:0:1::1") == 0
    failures(brake, "192.0.2.1")
    assert brake.take("::ffff:192.0.2.1") > 0


def test_an_address_that_is_none_is_counted_too(brake: SignInBrake) -> None:
    assert failures(brake, "") == PER_ADDRESS.burst
    assert failures(brake, "testclient") == PER_ADDRESS.burst


def test_the_memory_is_bounded(brake: SignInBrake, clock: Clock) -> None:
    for number in range(3 * MOST_ADDRESSES):
        clock.now += OVERALL.every
        assert brake.take(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}") == 0
        if number % 2:
            brake.succeeded(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}")
    assert brake.remembered <= 2 * MOST_ADDRESSES


TRIES = st.tuples(st.integers(0, 2), st.floats(0, 3), st.sampled_from((False, False, False, True)))


@given(st.lists(TRIES, min_size=80, max_size=300))
def test_no_order_of_tries_gets_more_than_the_allowance(tries: list[tuple[int, float, bool]]) -> None:
    clock = Clock()
    brake = SignInBrake(clock)
    began = clock.now
    failed: dict[int, int] = {}
    for address, pause, known in tries:
        clock.now += pause
        if brake.take(f"192.0.2.{address}"):
            continue
        if known:
            brake.succeeded(f"192.0.2.{address}")
        else:
            failed[address] = failed.get(address, 0) + 1
    for count in failed.values():
        assert count <= PER_ADDRESS.burst + (clock.now - began) / PER_ADDRESS.every + 1e-6
