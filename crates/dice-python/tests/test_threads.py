"""Threads share detectors, statistics and heads: everybody gets what one thread gets. Switched as often as the interpreter can."""

from __future__ import annotations

import pickle
import sys
import threading

import numpy as np
import pytest

import dice_ood as dice

THREADS = 8


@pytest.fixture(autouse=True)
def restless():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(work):
    """What as many threads get that begin at once; raises what one of them raises."""
    start, found, raised = threading.Barrier(THREADS), [None] * THREADS, []

    def run(place):
        start.wait()
        try:
            found[place] = work(place)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in raised:
        raise error
    return found


def test_one_detector_is_asked_by_all(network):
    det = dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)
    x = network.x_test
    expected, promised, file = det(x), det.with_target_acceptance(0.9).predict(x), det._engine.to_bytes()

    def ask(place):
        for turn in range(30):
            rows = slice(turn, 500 - place)
            np.testing.assert_array_equal(det(x[rows]).p_value, expected.p_value[rows])
            np.testing.assert_array_equal(det.score_samples(x[turn : turn + 1]), expected.score[turn : turn + 1])
            np.testing.assert_array_equal(det.with_target_acceptance(0.9).predict(x[rows]), promised[rows])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(det))(x).prediction, expected.prediction)
        return det._engine.to_bytes()

    assert together(ask) == [file] * THREADS


def test_statistics_and_fits(network):
    specs = ["dice(0.7) | energy", "knn(5)"]
    halves = [dice.gather(x, head=network.head, detectors=specs) for x in (network.x[:900], network.x[900:])]
    expected = halves[0].merge([halves[1]]).to_bytes()
    scores = dice.Detector("knn(5)").fit(network.x).score_samples(network.x_test)

    def merge_and_fit(place):
        np.testing.assert_array_equal(dice.Detector("knn(5)").fit(network.x).score_samples(network.x_test), scores)
        return halves[0].merge([halves[1]]).to_bytes()

    assert together(merge_and_fit) == [expected] * THREADS


def test_the_first_question_after_partial_fits(network, monkeypatch):
    """A detector of parts is fitted when it is first asked: once, whoever asks."""
    fits, fit = [], dice.Detector._fit_statistics
    monkeypatch.setattr(dice.Detector, "_fit_statistics", lambda self, *given: fits.append(self) or fit(self, *given))
    expected = dice.Detector("energy", head=network.head).partial_fit(network.x).score_samples(network.x_test)
    det = dice.Detector("energy", head=network.head).partial_fit(network.x)
    for found in together(lambda place: det.score_samples(network.x_test)):
        np.testing.assert_array_equal(found, expected)
    assert fits.count(det) == 1
