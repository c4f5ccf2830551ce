"""Detectors: fits, scores, decisions, files."""

from __future__ import annotations

import concurrent.futures
import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import dice_ood as dice

SPEC = "react(0.99) | dice(0.7) | energy"


@pytest.fixture(scope="module")
def det(network):
    return dice.Detector(SPEC, head=network.head).fit(network.x, network.y, calibration=network.calibration)


def energy(features, weight, bias):
    logits = features.astype(np.float64) @ weight.T.astype(np.float64) + bias
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


def test_dense_energy_is_the_formula(network):
    det = dice.Detector("energy", head=network.head).fit(network.x)
    np.testing.assert_allclose(det.score_samples(network.x_test), energy(network.x_test, *network.head), rtol=1e-5, atol=1e-5)


def test_masked_energy_is_the_formula(network):
    det = dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, calibration=network.calibration)
    contribution = network.weight.astype(np.float64) * network.x.astype(np.float64).mean(axis=0)
    kept = contribution > np.percentile(contribution, 70)
    np.testing.assert_allclose(
        det.score_samples(network.x_test), energy(network.x_test, network.weight * kept, network.bias), rtol=1e-5, atol=1e-5
    )


def test_what_is_asked_agrees(det, network):
    scores = det.score_samples(network.x_test)
    result = det(network.x_test)
    assert scores.dtype == np.float64 and scores.shape == (500,)
    np.testing.assert_array_equal(result.score, scores)
    np.testing.assert_array_equal(det.decision_function(network.x_test), scores - det.offset_)
    np.testing.assert_array_equal(det.predict(network.x_test), np.where(scores >= det.offset_, 1, -1))
    np.testing.assert_array_equal(result.is_ood, det.predict(network.x_test) == -1)
    np.testing.assert_array_equal(result.p_value, det.p_values(network.x_test))
    reached = (det.calibration_scores[None, :] <= scores[:, None]).sum(axis=1)
    np.testing.assert_allclose(result.p_value, (1 + reached) / (1 + len(det.calibration_scores)))
    assert (result.prediction == network.y_test).mean() > 0.8
    low, high = det.acceptance_interval()
    assert low < 0.95 < high


def test_selection_is_benjamini_hochberg(det, network):
    batch = np.vstack([network.x_test[:200], network.far[:100]])
    p = np.sort(det.p_values(batch))
    passed = np.nonzero(p <= 0.1 * np.arange(1, 301) / 300)[0]
    expected = det.p_values(batch) <= (p[passed[-1]] if len(passed) else -1)
    np.testing.assert_array_equal(det.select(batch, fdr=0.1), expected)
    assert expected[200:].sum() > 50
    with pytest.raises(dice.InputError, match="fdr"):
        det.select(batch, fdr=1.5)


def test_one_row_scores_as_in_a_batch(det, network):
    batch = det.score_samples(network.x_test)
    alone = np.array([det.score_samples(network.x_test[row : row + 1])[0] for row in range(50)])
    np.testing.assert_array_equal(alone, batch[:50])


def test_another_promise_needs_no_fit(det, network):
    other = det.with_target_acceptance(0.8)
    assert other.offset_ > det.offset_ and other.target_acceptance_ == 0.8
    refitted = dice.Detector(SPEC, head=network.head, target_acceptance=0.8)
    refitted.fit(network.x, network.y, calibration=network.calibration)
    assert refitted.offset_ == other.offset_
    assert (other.predict(network.calibration) == 1).mean() >= 0.8
    with pytest.raises(dice.CalibrationError, match="target_acceptance"):
        det.with_target_acceptance(1.5)


def test_files_and_pickles_keep_everything(det, network, tmp_path):
    path = tmp_path / "d.safetensors"
    det.save(path)
    scores = det.score_samples(network.x_test)
    for other in (dice.load(path), dice.load(str(path), detector=SPEC), pickle.loads(pickle.dumps(det)), copy.deepcopy(det)):
        np.testing.assert_array_equal(other.score_samples(network.x_test), scores)
        assert (other.offset_, other.spec_, other.n_features_in_) == (det.offset_, det.spec_, 24)
    with pytest.raises(dice.InputError, match="expected one of react"):
        dice.load(path, detector="msp")
    # What the pickle carries of the fit is the file.
    assert path.read_bytes() in pickle.dumps(det)


def test_a_loaded_detector_can_be_calibrated_again(det, network, tmp_path):
    det.save(tmp_path / "d.safetensors")
    again = dice.load(tmp_path / "d.safetensors").calibrate(network.x_test)
    assert len(again.calibration_scores) == 500
    np.testing.assert_array_equal(again.score_samples(network.far), det.score_samples(network.far))


def test_scores_without_decisions(network):
    det = dice.Detector("msp", head=network.head, calibration_fraction=0).fit(network.x)
    result = det(network.x_test)
    assert result.p_value is None and result.is_ood is None and set(result.to_dict()) == {"score", "prediction"}
    for ask in (det.predict, det.decision_function, det.p_values):
        with pytest.raises(dice.CalibrationError, match="fit with calibration="):
            ask(network.x_test)


def test_without_a_head(network):
    for spec in ("knn(5)", "mds", "fisher(knn(5), mds)"):
        det = dice.Detector(spec).fit(network.x, np.array(list("abcdefghij"))[network.y])
        assert det.classes_.tolist() == list("abcdefghij")
        assert (det.predict(network.far) == -1).mean() > (det.predict(network.x_test) == -1).mean()
    with pytest.raises(dice.MissingError, match="head"):
        dice.Detector("energy").fit(network.x)
    for spec in ("rmds", "rmds++", "fisher(rmds, knn(5))"):
        for y in (None, np.full(2000, 3)):
            with pytest.raises(dice.MissingError, match="compared with all rows, found one class.*y="):
                dice.Detector(spec).fit(network.x, y)


def test_auto(network):
    det = dice.Detector("auto", head=network.head).fit(network.x, network.y, calibration=network.calibration)
    assert det.spec_.startswith("evidence(") and (det.predict(network.far) == -1).mean() > 0.9
    for gathered in (lambda: dice.Detector("auto", head=network.head).partial_fit(network.x), lambda: dice.gather(network.x, detectors=["auto"])):
        with pytest.raises(dice.SpecError, match="found 'auto'; name one"):
            gathered()


def test_parts_are_the_whole(network):
    for spec in (SPEC, "knn(5)", "mds"):
        whole = dice.Detector(spec, head=network.head).fit(network.x, network.y, calibration=network.calibration)
        parts = dice.Detector(spec, head=network.head)
        for rows in np.array_split(np.arange(len(network.x)), 3):
            parts.partial_fit(network.x[rows], network.y[rows])
        scores = parts.score_samples(network.x_test)
        np.testing.assert_allclose(scores, whole.score_samples(network.x_test), rtol=1e-6)
        with pytest.raises(dice.CalibrationError):
            parts.predict(network.x_test)
        parts.calibrate(network.calibration)
        np.testing.assert_allclose(parts.offset_, whole.offset_, rtol=1e-6)


def test_statistics_merge_and_travel(network):
    whole = dice.gather(network.x, network.y, head=network.head, detectors=[SPEC, "knn"])
    halves = [dice.gather(network.x[part], network.y[part], head=network.head, detectors=[SPEC, "knn"]) for part in (slice(0, 900), slice(900, None))]
    sent = [dice.Statistics.from_bytes(one.to_bytes()) for one in halves]
    merged = sent[0].merge(sent[1:])
    assert merged.n_rows == whole.n_rows == 2000
    np.testing.assert_allclose(merged.mean_activation, whole.mean_activation, rtol=1e-12)
    assert pickle.loads(pickle.dumps(merged)) == merged
    det = dice.Detector(SPEC, head=network.head).fit(merged, calibration=network.calibration)
    direct = dice.Detector(SPEC, head=network.head).fit(network.x, calibration=network.calibration)
    np.testing.assert_allclose(det.score_samples(network.x_test), direct.score_samples(network.x_test), rtol=1e-6)


def test_few_rows_make_a_smaller_promise(network):
    with pytest.warns(dice.CalibrationWarning, match="few"):
        det = dice.Detector("knn(1)").fit(network.x[:20])
    assert det.target_acceptance_ == pytest.approx(10 / 11)
    with warnings.catch_warnings():
        warnings.simplefilter("error", dice.CalibrationWarning)
        assert dice.Detector("knn(1)").fit(network.x[:400]).target_acceptance_ == 0.95
        with pytest.raises(dice.CalibrationError):
            dice.Detector("knn(1)").fit(network.x[:400], calibration=network.calibration[:5])


def test_what_probably_is_a_mistake_is_a_warning(network):
    with pytest.warns(dice.FindingWarning):
        dice.Detector("energy", head=(network.weight[:, ::-1], network.bias)).fit(network.x, network.y)


def test_threads_share_a_detector(det, network):
    expected = det.score_samples(network.x_test)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found in pool.map(det.score_samples, [network.x_test] * 64):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spec", [SPEC, "dice(0.9, preset=openood) | energy", "msp", "knn(5)", "vim(12)", "mds", "evidence(lts, mds)"])
def test_onnx(network, tmp_path, spec):
    """An exported detector gives, under ONNX Runtime, what the detector gives."""
    runtime = pytest.importorskip("onnxruntime")
    det = dice.Detector(spec, head=network.head).fit(network.x, network.y, calibration=network.calibration)
    det.to_onnx(tmp_path / "head.onnx")
    session = runtime.InferenceSession(str(tmp_path / "head.onnx"))
    batch = np.vstack([network.x_test, network.far])
    found = {output.name: value.reshape(-1) for output, value in zip(session.get_outputs(), session.run(None, {"features": batch}))}
    expected = det(batch)
    np.testing.assert_allclose(found["ood_score"], expected.score, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(found["prediction"], expected.prediction)
    # Rounding moves an input past the calibration scores that are as near as that, and past the threshold only where it lies on it.
    passed = np.abs(det.calibration_scores - expected.score[:, None]) <= 2e-5 * (1 + np.abs(expected.score[:, None]))
    assert (np.abs(found["p_value"] - expected.p_value) <= passed.sum(axis=1) / (len(det.calibration_scores) + 1) + 1e-6).all()
    clear = np.abs(expected.score - det.offset_) > 1e-4
    np.testing.assert_array_equal(found["is_ood"][clear], expected.is_ood[clear])
    assert clear.mean() > 0.99
    broken = batch[:2].copy()
    broken[0, 0] = np.nan
    score, _, is_ood, prediction = session.run(None, {"features": broken})
    assert np.isnan(score.reshape(-1)[0]) and is_ood.reshape(-1)[0] and prediction.reshape(-1)[0] == -1


def test_heads(network, tmp_path):
    np.savez(tmp_path / "head.npz", weight=network.weight, bias=network.bias)
    head = dice.Head.load(tmp_path / "head.npz")
    assert head == dice.Head(*network.head) == pickle.loads(pickle.dumps(head)) and hash(head) == hash(dice.Head(*network.head))
    np.testing.assert_array_equal(head.weight, network.weight)

    class Linear:
        weight, bias = network.weight, None

    class Module:
        fc = Linear()

    assert dice.Head.of(Linear()) == dice.Head.of(Module()) == dice.Head(network.weight)
    assert dice.Head.of(lambda units: network.head, 24) == head
    with pytest.raises(AttributeError):
        head.weight = network.weight
    with pytest.raises(dice.DataTypeError, match="head"):
        dice.Head.of(3)


def test_names_of_classes(network, tmp_path):
    """Those of a Hugging Face folder or a classifier go into the detector's file, and come back."""
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save_file
    names = list("abcdefghij")
    weight, bias = map(torch.from_numpy, network.head)
    save({"classifier.weight": weight, "classifier.bias": bias}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    head = dice.Head.load(tmp_path)
    assert list(head.classes) == names == list(pickle.loads(pickle.dumps(head)).classes)
    check_names(head, network, tmp_path / "d.safetensors", names)


def check_names(head, network, file, names):
    dice.Detector("energy", head=head).fit(network.x, network.y).save(file)
    det = dice.load(file)
    assert list(det.head.classes) == json.loads(det.provenance["classes"]) == names
    assert list(dice.Head.of(det.calibrate(network.calibration).head).classes) == names
    again = pickle.loads(pickle.dumps(det))
    assert list(again.head.classes) == names


def test_names_of_classes_that_are_given(network, tmp_path):
    names = [f"class {place}" for place in range(10)]
    check_names(dice.Head(*network.head, classes=names), network, tmp_path / "d.safetensors", names)
    linear = pytest.importorskip("sklearn.linear_model")
    named = linear.LogisticRegression().fit(network.x, np.array(names)[network.y])
    assert list(dice.Head.of(named).classes) == names
    assert dice.Head.of(linear.LogisticRegression().fit(network.x, network.y)).classes == ()
    with pytest.raises(dice.ShapeError, match="one for each class"):
        dice.Head(*network.head, classes=["a"])


def test_binary_classifiers_of_sklearn(network):
    linear = pytest.importorskip("sklearn.linear_model")
    two = network.y < 2
    classifier = linear.LogisticRegression().fit(network.x[two], network.y[two])
    det = dice.Detector("msp", head=classifier).fit(network.x[two], network.y[two])
    expected = classifier.predict_proba(network.x_test).max(axis=1)
    np.testing.assert_allclose(det.score_samples(network.x_test), expected, atol=1e-5)
    many = linear.LogisticRegression(max_iter=500).fit(network.x, network.y)
    det = dice.Detector("msp", head=many).fit(network.x, network.y)
    np.testing.assert_allclose(det.score_samples(network.x_test), many.predict_proba(network.x_test).max(axis=1), atol=1e-5)
