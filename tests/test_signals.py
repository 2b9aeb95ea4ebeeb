import os
import signal
import threading

import pytest

from av2tsam_cli.signals import handle_signals, recorded_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_call_the_handler_and_the_previous_one_is_restored(number: signal.Signals) -> None:
    received: list[int] = []
    previous = signal.getsignal(number)
    with handle_signals(received.append):
        os.kill(os.getpid(), number)
    assert received == [number]
    assert signal.getsignal(number) is previous


def test_signals_are_recorded_although_a_library_drops_the_exception() -> None:
    previous = signal.getsignal(signal.SIGTERM)
    with recorded_signals() as received:
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert received == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is previous


def test_ignored_signals_stay_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        received: list[int] = []
        with handle_signals(received.append):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not received
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_other_threads_change_no_handler() -> None:
    found: list[object] = []

    def run() -> None:
        with handle_signals(lambda _: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
