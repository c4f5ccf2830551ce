"""The habits of scikit-learn."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import dice_ood as dice

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone, is_outlier_detector  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402


def head_of_width(units):
    """A head for data of any width."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, units)), rng.normal(size=3)


ESTIMATORS = [
    dice.Detector("knn(2)"),
    dice.Detector("mds"),
    dice.Detector("mds++"),
    dice.Detector("mds(by=prediction)", head=head_of_width),
    dice.Detector("energy", head=head_of_width),
    dice.Detector("dice(0.5) | energy", head=head_of_width),
]


@parametrize_with_checks(ESTIMATORS)
@pytest.mark.filterwarnings("ignore::dice_ood.FindingWarning", "ignore::dice_ood.CalibrationWarning")
def test_estimator(estimator, check):
    check(estimator)


def test_clones_and_parameters(network):
    det = dice.Detector("knn(5)", target_acceptance=0.9, seed=3).fit(network.x)
    other = clone(det)
    assert other.get_params() == det.get_params() and not hasattr(other, "offset_")
    assert other.set_params(spec="knn(7)").spec == "knn(7)" and is_outlier_detector(det)
    with pytest.raises(dice.InputError, match="contamination"):
        det.set_params(contamination=0.1)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        other.predict(network.x)
    assert repr(det) == "Detector('knn(5)', target_acceptance=0.9, seed=3)"


def test_pipelines(network):
    pipeline = make_pipeline(StandardScaler(), dice.Detector("knn(5)")).fit(network.x)
    scores = pipeline.score_samples(network.x_test)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipeline)).score_samples(network.x_test), scores)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(network.x, columns=[f"u{place}" for place in range(24)])
    framed = make_pipeline(StandardScaler().set_output(transform="pandas"), dice.Detector("knn(5)")).fit(frame)
    test = pandas.DataFrame(network.x_test, columns=frame.columns)
    np.testing.assert_array_equal(framed.score_samples(test), scores)
    assert framed[-1].feature_names_in_.tolist() == list(frame.columns)


def test_a_search_over_specs(network):
    """Fewer outliers missed is better: any scorer that scikit-learn takes."""

    def separation(detector, x, y=None):
        return detector.score_samples(x).mean() - detector.score_samples(network.far).mean()

    search = GridSearchCV(dice.Detector(head=network.head), {"spec": ["energy", "msp"]}, scoring=separation, cv=2)
    assert search.fit(network.x, network.y).best_params_ == {"spec": "energy"}
