"""The plugin for pytest, each time in a test session of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from textwrap import dedent
from tomllib import loads
from typing import TypeAlias

import pytest

import durably.testing.report
from durably.testing import Durable, Harness
from durably.testing.report import Report, Totals
from tests.processes import ROOT

pytest_plugins = ["pytester"]

Options: TypeAlias = tuple[str, ...]

PLUGIN = "_durably_pytest"
SCOPE: Options = ("-o", "asyncio_default_fixture_loop_scope=function")
AUTO: Options = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto", *SCOPE)
STRICT: Options = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=strict", *SCOPE)
ANYIO: Options = ("-p", "anyio.pytest_plugin")

ALL_ASYNCIO = "pytestmark = pytest.mark.asyncio"
ALL_ANYIO = """
    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"
"""
RUNNERS = pytest.mark.parametrize(
    ("runner", "marks"),
    [
        pytest.param(AUTO, "", id="pytest-asyncio-auto"),
        pytest.param(STRICT, ALL_ASYNCIO, id="pytest-asyncio-strict"),
        pytest.param(ANYIO, ALL_ANYIO, id="anyio"),
    ],
)

ACTORS = """
    import asyncio
    import pytest
    from durably import ObjectContext, VirtualObject, handler, state
    from durably.testing import Durable, Harness

    class Seat(VirtualObject):
        is_free: bool = state(default=True)

        @handler
        async def reserve(self, ctx: ObjectContext) -> bool:
            was_free, self.is_free = self.is_free, False
            return was_free

        @handler
        async def burn(self, ctx: ObjectContext) -> None:
            raise ValueError("the seat burns")

    ended = []

    class Noted(Harness):
        async def __aexit__(self, kind, error, trace):
            ended.append((asyncio.get_running_loop(), kind))
            await super().__aexit__(kind, error, trace)

    @pytest.fixture(autouse=True)
    def notes(monkeypatch):
        monkeypatch.setattr("durably.testing.harness.durable.Harness", Noted)
"""

SIMULATOR = """
    import asyncio
    import sys
    from types import ModuleType
    from durably.testing import report

    calls = []

    def simulate(program, *actors, runs=200, seed=None, **options):
        calls.append((actors, runs, seed, options))
        for number in range(runs):
            asyncio.run(program(f"app {number}"))
        done = report.Report(runs=runs, crashes=3, commits=0, actions=0, virtual_us=5_400_000_000)
        report.TOTALS.add(done)
        return done

    fake = sys.modules["durably.testing.simulation"] = ModuleType("durably.testing.simulation")
    fake.simulate, fake.calls = simulate, calls
"""
SIMULATED = """
    import asyncio
    import pytest
    from durably.testing.simulation import calls

    seen = []

    @pytest.fixture
    def tickets():
        return 7

    @pytest.mark.simulate(int, str, runs=5, dependencies={int: 1})
    async def test_it(tickets, simulation):
        await asyncio.sleep(0)
        seen.append((tickets, simulation))
"""


@pytest.fixture(autouse=True)
def _a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(durably.testing.report, "TOTALS", Totals())
    before = sys.modules.get("durably.testing.simulation")
    yield
    if before is None:
        sys.modules.pop("durably.testing.simulation", None)
    else:
        sys.modules["durably.testing.simulation"] = before


def run(pytester: pytest.Pytester, runner: Options, *sources: str, conftest: str = "") -> pytest.RunResult:
    """A session with this plugin, one that runs async tests, and a file of these sources."""
    pytester.makeconftest(dedent(conftest))
    pytester.makepyfile("\n".join(dedent(source) for source in sources))
    return pytester.runpytest_inprocess("-p", PLUGIN, "--strict-markers", "-W", "error", *runner)


class TestTheFixture:
    @RUNNERS
    def test_harnesses_end_after_the_test_in_its_loop(
        self, pytester: pytest.Pytester, runner: Options, marks: str
    ) -> None:
        result = run(
            pytester,
            runner,
            ACTORS,
            """
            loops = []

            class TestIt:
                async def test_it(self, durable: Durable) -> None:
                    loops.append(asyncio.get_running_loop())
                    first, second = await durable(Seat), await durable(Seat, seed=7)
                    assert await first.object(Seat, "2B").reserve()
                    assert await second.object(Seat, "2B").reserve()
                    assert not await first.object(Seat, "2B").reserve()
                    assert ended == []

            @pytest.mark.filterwarnings("default")
            def test_they_have_ended() -> None:
                assert ended == [(loops[0], None)] * 2
            """,
            marks.replace("pytestmark", "TestIt.pytestmark"),
        )
        result.assert_outcomes(passed=2)

    @RUNNERS
    def test_an_error_that_nobody_heard_fails_the_test(
        self, pytester: pytest.Pytester, runner: Options, marks: str
    ) -> None:
        result = run(
            pytester,
            runner,
            ACTORS,
            """
            async def test_it(durable: Durable) -> None:
                app = await durable(Seat)
                await app.object(Seat, "2B").burn.send()
            """,
            marks,
        )
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E * ValueError: the seat burns"])

    @RUNNERS
    def test_the_error_of_the_test_itself_wins(self, pytester: pytest.Pytester, runner: Options, marks: str) -> None:
        result = run(
            pytester,
            runner,
            ACTORS,
            """
            @pytest.fixture(autouse=True, scope="module")
            def at_the_end():
                yield
                assert [kind for _, kind in ended] == [KeyError]

            async def test_it(durable: Durable) -> None:
                app = await durable(Seat)
                await app.object(Seat, "2B").burn.send()
                raise KeyError("mine")
            """,
            marks,
        )
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E * KeyError: 'mine'"])
        result.stdout.no_fnmatch_line("E *the seat burns*")

    @RUNNERS
    def test_an_async_fixture_may_start_one(self, pytester: pytest.Pytester, runner: Options, marks: str) -> None:
        asynchronous = "pytest.fixture" if runner is ANYIO else "pytest_asyncio.fixture"
        result = run(
            pytester,
            runner,
            "import pytest_asyncio" if runner is not ANYIO else "",
            ACTORS,
            f"""
            @{asynchronous}
            async def app(durable: Durable) -> Harness:
                return await durable(Seat)

            async def test_it(app: Harness) -> None:
                assert await app.object(Seat, "2B").reserve()
                await app.object(Seat, "2B").burn.send()
            """,
            marks,
        )
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E * ValueError: the seat burns"])

    @RUNNERS
    def test_each_example_of_hypothesis_has_its_own(
        self, pytester: pytest.Pytester, runner: Options, marks: str
    ) -> None:
        result = run(
            pytester,
            (*runner, "-p", "_hypothesis_pytestplugin"),
            ACTORS,
            """
            from hypothesis import HealthCheck, given, settings, strategies as st

            quiet = [HealthCheck.function_scoped_fixture]
            started = []

            @settings(suppress_health_check=quiet, max_examples=5, database=None, deadline=None)
            @given(st.sampled_from("abc"))
            async def test_it(durable: Durable, letter: str) -> None:
                assert len(ended) == len(started)
                started.append(letter)
                app = await durable(Seat)
                assert await app.object(Seat, "2B").reserve()
            """,
            marks,
        )
        result.assert_outcomes(passed=1)

    def test_a_sync_test_is_told_to_be_async(self, pytester: pytest.Pytester) -> None:
        result = run(pytester, AUTO, "def test_it(durable): pass")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["The fixture `durable` is for async tests: write `async def` before the test."])

    def test_a_simulated_test_is_told_that_it_has_a_runtime(self, pytester: pytest.Pytester) -> None:
        source = "import pytest\n@pytest.mark.simulate()\nasync def test_it(simulation, durable): pass"
        result = run(pytester, AUTO, source)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["A simulated test has its runtime already: *"])


class TestASimulatedTest:
    def simulated(
        self, pytester: pytest.Pytester, runner: Options, expectation: str, marks: str = ""
    ) -> pytest.RunResult:
        after = f"def test_what_was_run():\n    {expectation}"
        after = "" if marks else after  # A mark for all would be on this one too.
        teardown = f"@pytest.fixture(autouse=True, scope='module')\ndef at_the_end():\n    yield\n    {expectation}"
        return run(pytester, runner, SIMULATED, marks, teardown, after, conftest=SIMULATOR)

    @pytest.mark.parametrize(
        ("runner", "marks"),
        [
            pytest.param(AUTO, "", id="pytest-asyncio-auto"),
            pytest.param(AUTO, ALL_ASYNCIO, id="pytest-asyncio-auto-marked"),
            pytest.param(STRICT, "", id="pytest-asyncio-strict"),
            pytest.param(STRICT, ALL_ASYNCIO, id="pytest-asyncio-strict-marked"),
            pytest.param(ANYIO, "", id="anyio"),
            pytest.param(ANYIO, ALL_ANYIO, id="anyio-marked"),
            pytest.param((), "", id="nothing-that-runs-async-tests"),
        ],
    )
    def test_is_the_program_of_a_simulation_with_its_fixtures(
        self, pytester: pytest.Pytester, runner: Options, marks: str
    ) -> None:
        expectation = (
            "assert calls == [((int, str), 5, None, {'dependencies': {int: 1}})]; "
            "assert seen == [(7, f'app {number}') for number in range(5)]"
        )
        result = self.simulated(pytester, runner, expectation, marks)
        result.assert_outcomes(passed=1 if marks else 2)
        result.stdout.fnmatch_lines(["durably: 5 simulated runs, 3 crashes, 1.5 hours of virtual time"])

    def test_may_be_a_method(self, pytester: pytest.Pytester) -> None:
        source = """
            import pytest

            class TestIt:
                @pytest.mark.simulate(runs=2)
                async def test_it(self, simulation):
                    assert simulation in ("app 0", "app 1")
        """
        run(pytester, AUTO, source, conftest=SIMULATOR).assert_outcomes(passed=1)

    def test_runs_as_often_as_the_command_line_says(self, pytester: pytest.Pytester) -> None:
        result = self.simulated(pytester, (*AUTO, "--simulate=11"), "assert calls[0][1:3] == (11, None)")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["durably: 11 simulated runs, *"])

    @pytest.mark.parametrize("option", ["--seed=42", "--simulate-seed=42"])
    def test_is_repeated_once_with_a_seed(self, pytester: pytest.Pytester, option: str) -> None:
        result = self.simulated(pytester, (*AUTO, option), "assert [call[1:3] for call in calls] == [(1, 42)]")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["durably: 1 simulated run, *"])

    def test_runs_as_often_as_the_command_line_says_from_a_seed_on(self, pytester: pytest.Pytester) -> None:
        expectation = "assert [call[1:3] for call in calls] == [(1, 42), (1, 43), (1, 44)]"
        result = self.simulated(pytester, (*AUTO, "--simulate=3", "--seed=42"), expectation)
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["durably: 3 simulated runs, *"])

    def test_that_fails_shows_its_error(self, pytester: pytest.Pytester) -> None:
        source = "import pytest\n@pytest.mark.simulate()\nasync def test_it(simulation): assert simulation == 'app'"
        result = run(pytester, AUTO, source, conftest=SIMULATOR)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*assert 'app 0' == 'app'*"])
        result.stdout.no_fnmatch_line("durably:*")

    @pytest.mark.parametrize("definition", ["def test_it(simulation): pass", "async def test_it(): pass"])
    def test_is_async_and_takes_the_simulation(self, pytester: pytest.Pytester, definition: str) -> None:
        result = run(pytester, AUTO, f"import pytest\n@pytest.mark.simulate()\n{definition}", conftest=SIMULATOR)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["A simulated test is an `async def` with a parameter `simulation`."])

    def test_is_marked(self, pytester: pytest.Pytester) -> None:
        result = run(pytester, AUTO, "async def test_it(simulation): pass")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["`simulation` is what a simulated test is given: *"])

    def test_counts_in_the_summary_whichever_worker_ran_it(self, pytester: pytest.Pytester) -> None:
        more = "@pytest.mark.simulate(runs=7)\nasync def test_another(simulation): pass"
        options = (*AUTO, "-p", "xdist.plugin", "-n2", "--dist=each")
        result = run(pytester, options, SIMULATED, more, conftest=SIMULATOR)
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["durably: 24 simulated runs, 12 crashes, 6.0 hours of virtual time"])


REAL = """
    import os
    import pytest
    from durably import ObjectContext, VirtualObject, handler, state

    class Post(VirtualObject, name="PluginPost"):
        got: int = state(default=0)

        @handler
        async def send(self, ctx: ObjectContext, names: list[str]) -> None:
            for name in (sorted(set(names)) if ORDERED else set(names)):
                await ctx.object(Post, name).get.send()

        @handler
        async def get(self, ctx: ObjectContext) -> None:
            self.got += 1

    @pytest.mark.simulate(Post, runs=60)
    async def test_letters(simulation):
        with open("seeds", "a") as file:
            file.write(f"{os.getpid()} {simulation.seed}\\n")
        await simulation.object(Post, "start").send(["ann", "bob", "eve", "joe", "sue"])
        assert simulation.seed != FAILS
"""


class TestACampaign:
    """The real simulator, in a session of its own process."""

    def session(
        self,
        pytester: pytest.Pytester,
        monkeypatch: pytest.MonkeyPatch,
        *options: str,
        ordered: bool = True,
        fails: int = -1,
    ) -> pytest.RunResult:
        monkeypatch.delenv("DURABLY_FAILURES", raising=False)
        monkeypatch.setenv("PYTEST_ADDOPTS", f"-p {PLUGIN}")
        pytester.makeconftest("")
        pytester.makepyfile(f"ORDERED, FAILS = {ordered}, {fails}\n{dedent(REAL)}")
        (pytester.path / "seeds").unlink(missing_ok=True)
        return pytester.runpytest_subprocess(*options)

    def ran(self, pytester: pytest.Pytester) -> list[tuple[int, int]]:
        """The process and the seed of each run."""
        lines = (pytester.path / "seeds").read_text("utf-8").splitlines()
        return [(int(process), int(seed)) for process, seed in map(str.split, lines)]

    @pytest.mark.slow
    def test_is_split_among_the_workers_of_xdist_and_each_seed_runs_once(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = self.session(pytester, monkeypatch, "-p", "xdist.plugin", "-n2")
        result.assert_outcomes(passed=2)
        ran = self.ran(pytester)
        assert {seed for _, seed in ran} == set(range(60))
        assert len({process for process, _ in ran}) == 2
        assert len([seed for _, seed in ran if seed]) == 59, "only the undisturbed run is made by each worker"
        result.stdout.fnmatch_lines(["durably: 6[01] simulated runs, *"])

    @pytest.mark.slow
    def test_is_shared_out_among_processes(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        result = self.session(pytester, monkeypatch, "--simulate-jobs=2", fails=7)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*The run with seed 7 failed*", "*As a test: pytest *::test_letters --seed=7*"])
        assert len({process for process, _ in self.ran(pytester)}) == 3

    @pytest.mark.slow
    def test_keeps_the_seeds_that_failed_and_begins_with_them(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.session(pytester, monkeypatch, fails=7).assert_outcomes(failed=1)
        (kept,) = (pytester.path / ".durably").rglob("*.trace")
        assert kept.name == "7.trace"
        assert "PluginPost/start/send" in kept.read_text("utf-8")
        self.session(pytester, monkeypatch, fails=7).assert_outcomes(failed=1)
        assert [seed for _, seed in self.ran(pytester)][:2] == [0, 7], "the undisturbed run, and the one that failed"
        self.session(pytester, monkeypatch).assert_outcomes(passed=1)
        assert not [*(pytester.path / ".durably").rglob("*.trace")]

    @pytest.mark.slow
    def test_is_compared_between_processes_with_other_hash_seeds(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        option = ("--simulate-hash-seeds", "--simulate=3")
        self.session(pytester, monkeypatch, *option).assert_outcomes(passed=1)
        assert [seed for _, seed in self.ran(pytester)] == [0, 1, 2] * 3
        result = self.session(pytester, monkeypatch, *option, ordered=False)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*HashSeedError: The run with seed 0 depends on the hash of text*"])


class TestTheCommandLine:
    def test_a_seed_of_the_users_own_stays_theirs(self, pytester: pytest.Pytester) -> None:
        result = run(
            pytester,
            (*AUTO, "--seed=theirs", "--simulate-seed=42"),
            SIMULATED,
            "def test_it_is(pytestconfig): assert pytestconfig.getoption('seed') == 'theirs'; assert calls[0][2] == 42",
            conftest=f"{dedent(SIMULATOR)}\ndef pytest_addoption(parser): parser.addoption('--seed')",
        )
        result.assert_outcomes(passed=2)

    @pytest.mark.parametrize("number", ["0", "-3", "many"])
    def test_a_number_of_runs_is_at_least_one(self, pytester: pytest.Pytester, number: str) -> None:
        result = run(pytester, (f"--simulate={number}",))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*--simulate takes how many runs it shall be, at least 1, not '{number}'."])

    @pytest.mark.parametrize("seed", ["--seed=-1", "--simulate-seed=-1", "--seed=many"])
    def test_a_seed_is_not_negative(self, pytester: pytest.Pytester, seed: str) -> None:
        result = run(pytester, (seed,))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        given = seed.partition("=")[2]
        result.stderr.fnmatch_lines([f"*--seed takes the seed of a run, a whole number from 0 on, not '{given}'."])

    def test_it_is_explained(self, pytester: pytest.Pytester) -> None:
        result = run(pytester, ("--help", "--markers"))
        result.stdout.fnmatch_lines(["*--simulate=N*", "*--seed=N*"])


def test_a_harness_is_started_with_its_own_parameters() -> None:
    assert (
        list(signature(Durable.__call__).parameters.values())[1:]
        == list(signature(Harness.__init__).parameters.values())[1:]
    )


def test_pytest_finds_the_plugin_and_loading_it_loads_nothing_of_durably(pytester: pytest.Pytester) -> None:
    config = loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert config["project"]["entry-points"]["pytest11"] == {"durably": PLUGIN}
    pytester.makepyfile("import sys\ndef test_it(): assert not [name for name in sys.modules if 'durably.' in name]")
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-q"]
    done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("virtual_us", "text"),
    [
        (0, "0.0 seconds"),
        (1_500_000, "1.5 seconds"),
        (90_000_000, "1.5 minutes"),
        (36 * 3_600_000_000, "1.5 days"),
        (391_046_400_000_000, "12.4 years"),
        (365 * 86_400_000_000 * 2_000, "2,000.0 years"),
    ],
)
def test_totals_say_how_much_time_has_passed(virtual_us: int, text: str) -> None:
    totals = Totals()
    totals.add(Report(runs=2_000, crashes=1, commits=9, actions=9, virtual_us=virtual_us))
    assert str(totals.report) == f"2,000 simulated runs, 1 crash, {text} of virtual time"


@pytest.mark.parametrize(
    ("call", "account"),
    [
        ("replay_journals([write_journal(JOURNAL, tmp_path)], Seat)", "1 of 1 journals do not replay with this code."),
        ("check_linearizable([CALL], SeatModel)", "This object is not linearizable: *"),
    ],
)
def test_what_fails_shows_the_tests_own_line_and_nothing_of_durably(
    pytester: pytest.Pytester, call: str, account: str
) -> None:
    source = f"""
        from durably.ids import InvocationStatus
        from durably.testing import HistoryCall, check_linearizable
        from durably.testing.replaying.journals import ExportedJournal, write_journal
        from durably.testing.replaying.replay import replay_journals

        JOURNAL = ExportedJournal(
            id="inv_1", service="Gone", key="a", handler="reserve", status=InvocationStatus.PENDING, accepted_at=0,
            deadline=None, idempotency_key=None, headers={{}}, argument=b"[]", seed=b"", snapshot={{}}, steps=(),
            deliveries=(), durably="0", python="3.11",
        )
        CALL = HistoryCall(handler="reserve", began=0, ended=1, result=False)

        class SeatModel:
            def reserve(self):
                return True

        def test_it(tmp_path):
            {call}
    """
    result = run(pytester, (), ACTORS, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E * {account}"])
    result.stdout.no_fnmatch_line("*durably/testing/*.py:*")


def test_the_summary_of_pytest_names_the_real_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        dedent(ACTORS)
        + dedent("""
        class Broken(VirtualObject):
            @handler
            async def act(self, ctx: ObjectContext) -> None:
                raise KeyError("no such seat")

        async def test_a_call(durable: Durable) -> None:
            app = await durable(Broken)
            await app.object(Broken, "a").act()

        @pytest.mark.simulate(Broken, runs=1)
        async def test_a_simulation(simulation) -> None:
            await simulation.object(Broken, "a").act()

        @pytest.mark.simulate(Seat, runs=1)
        async def test_an_assertion(simulation) -> None:
            assert not await simulation.object(Seat, "a").reserve()
        """)
    )
    result = pytester.runpytest(*AUTO, "-p", PLUGIN, "-vv")
    result.stdout.fnmatch_lines(
        [
            "FAILED *::test_a_call - KeyError: 'no such seat' (the invocation is paused)",
            "FAILED *::test_a_simulation - KeyError: 'no such seat' (the invocation is paused) (seed 0)",
            "FAILED *::test_an_assertion - AssertionError: assert not True (seed 0)",
        ]
    )
    result.stdout.no_fnmatch_line("*traceback entries are hidden*")
    result.stdout.no_fnmatch_line("*run_until_complete*")


class TestTheMark:
    """What it says and cannot work, or never happens, is a sentence without frames of the kit."""

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("", "There is nothing to simulate: give the classes of actors"),
            ("Seat, run=30", "A simulation has no option 'run'."),
            ("Seat, runs=0", "runs= is a whole number from 1 on, not 0."),
        ],
    )
    def test_that_cannot_work_is_told_in_a_sentence(self, pytester: pytest.Pytester, arguments: str, told: str) -> None:
        result = run(pytester, AUTO, ACTORS, f"@pytest.mark.simulate({arguments})\nasync def test_it(simulation): pass")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"*{told.replace('[', '[[]')}*"])
        for hidden in ("campaign.py", "options.py", "_durably_pytest.py"):
            result.stdout.no_fnmatch_line(f"*{hidden}*")

    def test_whose_condition_never_came_true_is_told_in_a_sentence(self, pytester: pytest.Pytester) -> None:
        never = """
            @pytest.mark.simulate(Seat, runs=2)
            async def test_it(simulation):
                simulation.sometimes("sold twice", False)
        """
        result = run(pytester, AUTO, ACTORS, never)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*NeverHappenedError: 'sold twice' did not happen in any of 2 runs*"])
        result.stdout.no_fnmatch_line("*campaign.py*")

    def test_without_any_crash_is_named_beside_others_that_saw_some(self, pytester: pytest.Pytester) -> None:
        two = """
            from durably.testing import Faults

            @pytest.mark.simulate(Seat, runs=3, faults=Faults.slow())
            async def test_calm(simulation):
                await simulation.object(Seat, "a").reserve()

            @pytest.mark.simulate(Seat, runs=3, faults=Faults.crash(at="before_commit:2"))
            async def test_wild(simulation):
                await simulation.object(Seat, "a").reserve()
        """
        result = run(pytester, AUTO, ACTORS, two)
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*no run saw a crash in *::test_calm"])
        result.stdout.no_fnmatch_line("*no run saw a crash in *test_wild*")
