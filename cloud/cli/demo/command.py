"""`ballast demo`: set the stage, play the story, judge it, and keep running until told to stop."""

import argparse
import os
import secrets
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from cloud.cli.demo import captures, checks, stage
from cloud.cli.demo.chaos import Chaos
from cloud.cli.demo.figures import Figures, json_line, machine
from cloud.cli.demo.judge import judge
from cloud.cli.demo.narrator import Narrator
from cloud.cli.demo.processes import ChildFailed, Crew
from cloud.cli.demo.setting import await_cloud, open_database, open_sites
from cloud.cli.demo.stage import NoStage, Options, Stage
from cloud.cli.demo.story import StepFailed, Story
from cloud.cli.demo.watch import Watch
from sitelink.clock import Clock, SystemClock

_MINERS: Final = 250


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``ballast demo`` takes."""
    parser.add_argument("--once", action="store_true", help="play the story headless, judge it, print one JSON line")
    parser.add_argument("--miners", type=int, default=_MINERS, metavar="N", help="miners a site (default %(default)s)")
    parser.add_argument("--seed", type=int, help="what the simulation is drawn from (default: fresh, printed)")
    parser.add_argument("--captures", type=Path, metavar="DIR", help="put recorded real devices beside the simulated")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="drive the market with a real hourly price file")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill -9 N processes at random moments")
    parser.add_argument("--http-port", type=int, metavar="PORT", help="the console's port (default: a free one)")


def run(arguments: argparse.Namespace) -> int:
    """Play the demo; 0 when every step held, 1 when one did not, 2 when it cannot be set up here."""
    problem = _problem(arguments)
    if problem is not None:
        print(f"demo: {problem}", file=sys.stderr)
        return 2
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1_000_000)
    options = Options(
        once=arguments.once,
        miners=arguments.miners,
        seed=seed,
        kills=arguments.kills,
        captures=arguments.captures and arguments.captures.resolve(),
        prices=arguments.prices and arguments.prices.absolute(),
        http_port=arguments.http_port,
    )
    over = threading.Event()
    _end_on_signals(over)
    try:
        scene = stage.build(options)
    except NoStage as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    held = False
    clock = SystemClock()
    crew = Crew(scene.folder, clock)
    try:
        held = _play(scene, crew, clock, over)
    except ChildFailed as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: told to end", file=sys.stderr)
    finally:
        crew.close()
        if held:
            stage.clear(scene)
        else:
            print(f"demo: logs are kept in {scene.folder}", file=sys.stderr)
    return 0 if held else 1


def _play(scene: Stage, crew: Crew, clock: Clock, over: threading.Event) -> bool:
    settings, database = open_database(scene)
    narrator = Narrator(clock, terminal=sys.stderr.isatty() and not scene.options.once)
    narrator.say(f"Ballast demo: {len(scene.sites)} sites of {scene.options.miners} miners, seed {scene.options.seed}")
    if scene.options.captures is not None:
        narrator.say(f"and the devices recorded in {scene.options.captures}, replayed as they answered")
    narrator.say("Starting simulators, PostgreSQL and the control plane")
    stage.start_cloud(scene, crew)
    stage.start_simulators(scene, crew)
    watch = Watch(database)
    try:
        principal = await_cloud(scene, crew, database, watch.serves, clock)
        watch.principal = principal
        password = open_sites(scene, crew, settings, database, principal)
        stage.start_market(scene, crew)
        narrator.say(f"Console http://{scene.http}  login {settings.operator_email}  one-time password {password}")
        story = Story(scene, crew, watch, narrator, clock)
        agents = tuple(f"agent-{site.site_id}" for site in scene.all_sites)
        chaos = Chaos(crew, agents, scene.options.kills, scene.options.seed, narrator.say)
        held = _tell(story, narrator, chaos)
        figures = judge(scene, story.record, watch, kills=chaos.done)
        held = _report(scene, figures, held)
        if not scene.options.once:
            _stay(narrator, over)
        return held
    finally:
        watch.close()


def _stay(narrator: Narrator, over: threading.Event) -> None:
    """Keep running until told to end: that is how a story that was told ends, and no failure of it."""
    with suppress(KeyboardInterrupt):
        narrator.say("The demo keeps running; Ctrl-C ends it.")
        over.wait()


def _tell(story: Story, narrator: Narrator, chaos: Chaos) -> bool:
    narrator.titles = story.titles()
    chaos.start()
    try:
        with narrator:
            story.play()
    except StepFailed as failure:
        narrator.say(f"The story broke off: {failure}")
        return False
    finally:
        chaos.stop()
    return True


def _report(scene: Stage, figures: Figures, held: bool) -> bool:
    for line in figures.failures():
        print(f"demo: {line}", file=sys.stderr)
    held = held and not figures.failures()
    if scene.options.once:
        print(json_line(figures, scene.options.seed, machine(os.cpu_count() or 1)), flush=True)
    return held


def _problem(arguments: argparse.Namespace) -> str | None:
    simulator = stage.program("ballast-sim")
    wrong = checks.miners(arguments.miners)
    if wrong is None and arguments.kills < 0:
        wrong = f"--kills {arguments.kills}: give 0 or more"
    if wrong is None and arguments.http_port is not None:
        wrong = checks.http_port(arguments.http_port)
    if wrong is None and arguments.prices is not None:
        wrong = checks.prices(arguments.prices, simulator)
    if wrong is None and arguments.captures is not None:
        against = captures.problem(arguments.captures, simulator)
        wrong = against and f"--captures {arguments.captures}: {against}"
    return wrong


def _end_on_signals(over: threading.Event) -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        if over.is_set():
            return
        over.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
