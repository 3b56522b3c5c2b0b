from __future__ import annotations

import re
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from durably import Context, ObjectContext, Service, VirtualObject, handler
from durably.ids import BASE62, derived_invocation_id, new_identity
from durably.testing import Harness
from durably.testing.harness.virtual import SeededEntropy

FORM = re.compile(r"inv_1([0-9a-zA-Z]{11})([0-9a-zA-Z]{22})")
OLDER_FORM = re.compile(r"inv_[0-9a-f]{32}")
OLDER_ID = "inv_1" + 31 * "a"  # Begins as the ids of today do.

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
keys = st.none() | names
seeds = st.binary(min_size=16, max_size=16)
parents = st.integers().map(SeededEntropy).map(partial(new_identity, service="S", key="k"))


def numbers(id: str) -> tuple[int, int]:
    """What Restate's command line reads from it."""
    form = FORM.fullmatch(id)
    assert form is not None, id
    first, second = (sum(BASE62.index(d) * 62**n for n, d in enumerate(reversed(part))) for part in form.groups())
    return first, second


@given(service=names, key=keys, seed=st.integers(), command=st.integers(0, 10_000))
def test_every_id_is_a_number_of_64_bits_and_one_of_128(service: str, key: str | None, seed: int, command: int) -> None:
    id, secret = new_identity(SeededEntropy(seed), service, key)
    assert len(secret) == 16
    for made in (id, derived_invocation_id(id, secret, command, service, key)):
        first, second = numbers(made)
        assert first < 2**64
        assert second < 2**128


def test_the_largest_digits_stay_below_their_powers_of_two() -> None:
    class Constant:
        def __init__(self, byte: int) -> None:
            self.byte = byte

        def random_bytes(self, count: int, /) -> bytes:
            return bytes([self.byte]) * count

    for byte in range(256):
        first, second = numbers(new_identity(Constant(byte), "S", None)[0])
        assert first < 2**64
        assert second < 2**128


@given(address=st.tuples(names, names), other=st.tuples(names, keys), parent=parents, seed=st.integers())
def test_ids_begin_alike_where_the_address_is_the_same(
    address: tuple[str, str], other: tuple[str, str | None], parent: tuple[str, bytes], seed: int
) -> None:
    entropy = SeededEntropy(seed)
    fresh, again = (numbers(new_identity(entropy, *address)[0]) for _ in range(2))
    derived = numbers(derived_invocation_id(*parent, 0, *address))
    elsewhere = numbers(new_identity(entropy, *other)[0])
    assert fresh[0] == again[0] == derived[0]
    assert (elsewhere[0] == fresh[0]) == (other == address)
    assert len({fresh[1], again[1], derived[1], elsewhere[1]}) == 4


@given(parent=parents, older_seed=seeds, key=keys, commands=st.sets(st.integers(0, 2**40), min_size=2, max_size=4))
def test_a_derived_id_has_the_form_of_the_id_that_derives_it_and_is_the_same_on_replay(
    parent: tuple[str, bytes], older_seed: bytes, key: str | None, commands: set[int]
) -> None:
    for (id, seed), form in ((parent, FORM), ((OLDER_ID, older_seed), OLDER_FORM)):
        derived = [derived_invocation_id(id, seed, command, "S", key) for command in commands]
        assert all(form.fullmatch(made) for made in derived)
        assert len(set(derived)) == len(commands)
        assert derived == [derived_invocation_id(id, seed, command, "S", key) for command in commands]
    assert derived_invocation_id(OLDER_ID, older_seed, 1, "S", "k") == derived_invocation_id(
        OLDER_ID, older_seed, 1, "other", None
    )  # What journals of the older form hold.


def test_the_ids_of_the_older_form_are_those_that_they_always_were() -> None:
    assert derived_invocation_id(OLDER_ID, bytes(16), 7, "S", "k") == "inv_329cf6609fac1f570e65fc29b54a91c6"


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext) -> str:
        return ctx.request.id


class Caller(Service):
    @handler
    async def send(self, ctx: Context) -> tuple[str, str]:
        sent = await ctx.object(Counter, "a").add.send()
        return sent.id, await sent.result()


async def test_the_id_that_a_handler_is_given_for_its_message_leads_to_the_invocation_at_its_address() -> None:
    async with Harness(Counter, Caller) as app:
        asked = await app.object(Counter, "a").add()
        sent, ran = await app.service(Caller).send()
        assert sent == ran
        assert numbers(sent)[0] == numbers(asked)[0]
