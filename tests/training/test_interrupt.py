"""Signals: the first asks, the second SIGINT stops at once, never inside a save."""

from __future__ import annotations

import os
import signal

import pytest

from cllm.training.interrupt import Interrupt


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_only_asks_and_is_heard(number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    before = signal.getsignal(number)
    with Interrupt().installed() as interrupt:
        assert interrupt.name is None
        send(number)
        assert interrupt.name == number.name
    assert signal.getsignal(number) is before
    assert "finishing this step" in capfd.readouterr().err


def test_a_second_sigint_stops_at_once_but_a_second_sigterm_does_not():
    with pytest.raises(KeyboardInterrupt), Interrupt(announce=False).installed():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)


def test_a_second_sigint_waits_for_the_end_of_a_save():
    done = False
    with pytest.raises(KeyboardInterrupt), Interrupt(announce=False).installed() as interrupt:
        send(signal.SIGINT)
        with interrupt.shield():
            send(signal.SIGINT)
            done = True
    assert done


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt(announce=False).installed() as interrupt:
            send(signal.SIGHUP)
            assert interrupt.name is None
    finally:
        signal.signal(signal.SIGHUP, before)
