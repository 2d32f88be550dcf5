"""`senergy agent`: the loop around the agent. It sleeps in poll(2) until the next tick, a hook's file or a client."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from slurm_energy.agent.agent import Agent
from slurm_energy.agent.clock import Clock, FileClock
from slurm_energy.agent.inotify import Watch
from slurm_energy.agent.options import AgentOptions, Started, parse
from slurm_energy.agent.server import Server
from slurm_energy.agent.snapshot import take
from slurm_energy.sources import find_all
from slurm_energy.version import __version__

log = logging.getLogger("senergy.agent")


def main(arguments: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT; 0 then, 1 where it cannot start. Raises ConfigError for a wrong configuration."""
    started = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        if started.finish:
            finish(started)
        else:
            with _alone(started.options):
                run(started)
    except BlockingIOError:
        log.error("another agent holds %s: systemctl stop slurm-energy-agent first", started.options.state_dir)
        return 1
    except OSError as error:
        log.error("%s: %s; the agent runs as root (docs/install.md)", error.filename or "agent", error.strerror)
        return 1
    return 0


def run(started: Started) -> None:
    """The agent's life. Raises OSError where its folders or its socket cannot be made."""
    options = started.options
    Path(options.hooks).mkdir(mode=0o700, parents=True, exist_ok=True)
    agent = _agent(started)
    for meter in agent.engine.meters:
        log.info("reads %s (%s)", meter.counter.name, meter.counter.domain)
    stopped = _stop_on_signals()
    watch = Watch(options.hooks)
    server = Server(Path(options.socket), agent.store.group)
    agent.start()
    ship = _shipper(agent)
    gc.collect()
    gc.freeze()
    try:
        _loop(agent, watch, server, stopped)
    finally:
        agent.stop()
        server.close()
        watch.close()
        if ship is not None:
            ship()
        for meter in agent.engine.meters:
            meter.counter.close()


def finish(started: Started) -> None:
    """What a stopped agent left open goes to the outbox. Raises OSError as `run` does."""
    if not Path(started.options.state_dir).is_dir():
        return
    with _alone(started.options):
        agent = _agent(started)
        agent.start()
        agent.finish()


@contextlib.contextmanager
def _alone(options: AgentOptions) -> Iterator[None]:
    """Holds the agent's folder: two agents would count everything twice. Raises BlockingIOError while another one does."""
    folder = Path(options.state_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def _agent(started: Started) -> Agent:
    """An agent with this node's counters; what may not be read is said."""
    options = started.options
    clock = FileClock(started.clock) if started.clock else Clock()
    found = find_all(options.sources)
    for refusal in found.refused:
        log.warning("%s: %s; %s", refusal.what, refusal.why, refusal.remedy)
    names = dict.fromkeys(counter.name.split(":")[0] for counter in found.counters)
    return Agent(options, found.counters, found.refused, [f"{name}/{__version__}" for name in names], clock)


def _loop(agent: Agent, watch: Watch, server: Server, stopped: int) -> None:
    poll = select.poll()
    poll.register(stopped, select.POLLIN)
    poll.register(server.socket, select.POLLIN)
    if watch.fileno() >= 0:
        poll.register(watch.fileno(), select.POLLIN)
    encoder = msgspec.json.Encoder()
    period = agent.options.period_s
    due = time.monotonic() + period
    while True:
        events = poll.poll(max((due - time.monotonic()) * 1000, 0))
        for descriptor, _ in events:
            if descriptor == stopped:
                return
            if descriptor == server.socket.fileno():
                for slow in server.accept(encoder.encode(take(agent))):
                    poll.register(slow, select.POLLOUT)
            elif descriptor == watch.fileno():
                watch.drain()
                agent.tick()
            elif not server.go_on(descriptor):
                poll.unregister(descriptor)
        now = time.monotonic()
        if now >= due:
            agent.tick()
            for late in server.expire():
                poll.unregister(late)
            # A tick that came late does not bring others in a bunch.
            due = max(due + period, now + period / 2)


def _stop_on_signals() -> int:
    """A descriptor that is readable once SIGTERM or SIGINT came."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return reader


def _shipper(agent: Agent) -> Callable[[], None] | None:
    """Ships from a thread of the agent where a site wants that; what ends the thread, or None."""
    if not agent.options.ship_to:
        return None
    import threading

    from slurm_energy.ship import ship_forever

    stop = threading.Event()
    options = agent.options
    thread = threading.Thread(
        target=ship_forever, args=(Path(options.outbox), Path(options.ship_to), options.flush_s, stop),
        kwargs={"cluster": agent.names.stamped, "node": agent.names.node}, daemon=True,
    )  # fmt: skip
    thread.start()
    return stop.set
