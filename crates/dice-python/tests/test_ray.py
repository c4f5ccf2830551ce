"""Ray Data on two nodes: what is a process of its own on a cluster is one here too, with an object store of its own."""

from __future__ import annotations

import os

import numpy as np
import pytest

import dice_ood as dice

# It would tell its makers, by way of the network.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("ray.data")

import dice_ood.ray as on_ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    nodes = dict(num_cpus=1, object_store_memory=100 << 20)
    made = Cluster(initialize_head=True, head_node_args={**nodes, "include_dashboard": False})
    made.add_node(**nodes)
    ray.init(address=made.address, log_to_driver=False)
    made.wait_for_nodes()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.wait_for_min_actors_s = False, 120
    yield made
    ray.shutdown()
    made.shutdown()


def dataset_of(x, y=None, parts=8):
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), x.shape[1])
    columns = {"row": np.arange(len(x)), "features": lists}
    if y is not None:
        columns["y"] = y
    table = pyarrow.table(columns)
    size = -(-len(x) // parts)
    return ray.data.from_arrow([table.slice(start, size).combine_chunks() for start in range(0, len(x), size)])


def actors(number=2):
    """Actors that take a whole node each, and a block at a time."""
    pool = ray.data.ActorPoolStrategy(size=number, max_tasks_in_flight_per_actor=1)
    return dict(batch_format="pyarrow", zero_copy_batch=True, compute=pool, num_cpus=1)


def column(rows, name):
    return np.array([row["ood"][name] for row in rows])


def test_scores_are_those_of_one_machine(cluster, network):
    assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    det = dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)
    expected = det(network.x_test)

    class Placed(on_ray.Score):
        """Says too on which node it ran."""

        def __call__(self, batch):
            node = ray.get_runtime_context().get_node_id()
            return super().__call__(batch).append_column("node", pyarrow.array([node] * batch.num_rows))

    scored = dataset_of(network.x_test).map_batches(Placed, fn_constructor_args=[det, "features"], batch_size=None, **actors()).take_all()
    scored.sort(key=lambda row: row["row"])
    for name in ("score", "p_value", "is_ood", "prediction"):
        np.testing.assert_array_equal(column(scored, name), getattr(expected, name))
    assert set(scored[0]) == {"row", "features", "ood", "node"}
    assert len({row["node"] for row in scored}) == 2, "both nodes scored"


def test_a_batch_is_read_where_it_lies(cluster, network):
    """What the detector reads is the column's own memory in the object store, which nobody may write to."""

    class Looks(on_ray.Score):
        def __call__(self, batch):
            from dice_ood._arrow import arrow_features

            read = arrow_features(batch, "features")
            chunk = batch.column("features").chunk(0)
            values = chunk.flatten().buffers()[1]
            start = read.__array_interface__["data"][0]
            with open("/proc/self/maps") as maps:
                held = [line.split() for line in maps if inside(line, start)]
            return pyarrow.table({
                "same": [values.address <= start < values.address + values.size],
                "dtype": [str(read.dtype)],
                "ordered": [read.flags.c_contiguous],
                "shared": [held[0][1][3] == "s" or "plasma" in held[0][-1]],
            })

    def inside(line, address):
        first, last = (int(edge, 16) for edge in line.split()[0].split("-"))
        return first <= address < last

    det = dice.Detector("knn(5)").fit(network.x)
    # Beyond what travels inside a message, so that blocks are in the object store.
    x = np.tile(network.x, (20, 1))
    seen = dataset_of(x, parts=4).map_batches(Looks, fn_constructor_args=[det], batch_size=None, **actors()).take_all()
    assert seen == [{"same": True, "dtype": "float32", "ordered": True, "shared": True}] * 4


def test_tensors_are_features_too(cluster, network):
    det = dice.Detector("knn(5)").fit(network.x)
    dataset = ray.data.from_numpy(network.x_test)
    scored = dataset.map_batches(on_ray.Score, fn_constructor_args=[det], **actors(1)).take_all()
    np.testing.assert_array_equal(np.sort(column(scored, "score")), np.sort(det.score_samples(network.x_test)))


def test_statistics_merge(cluster, network):
    specs = ["dice(0.7) | energy", "knn(5)", "mds"]
    gathered = on_ray.gather(dataset_of(network.x, network.y), head=network.head, detectors=specs, columns="features", label="y")
    assert gathered.n_rows == len(network.x)
    for spec in specs:
        there = dice.Detector(spec, head=network.head).fit(gathered, calibration=network.calibration)
        here = dice.Detector(spec, head=network.head).fit(network.x, network.y, calibration=network.calibration)
        np.testing.assert_allclose(there.score_samples(network.x_test), here.score_samples(network.x_test), rtol=1e-6)
    with pytest.raises(dice.DiceError, match="no rows"):
        on_ray.gather(dataset_of(network.x).filter(lambda row: False), detectors=["knn(5)"], columns="features")


def test_sums_that_are_exact_give_the_same_bytes(cluster, network):
    """Features of few digits add up without rounding, in any order: then statistics and detectors are the same bytes."""
    x = np.round(network.x * 16) / 16
    specs = ["dice(0.7) | energy", "knn(5)"]
    there = on_ray.gather(dataset_of(x, network.y), head=network.head, detectors=specs, columns="features", label="y")
    here = dice.gather(x, network.y, head=network.head, detectors=specs)
    assert there.to_bytes() == here.to_bytes()
    for spec in specs:
        fits = [dice.Detector(spec, head=network.head).fit(one, calibration=network.calibration) for one in (there, here)]
        assert fits[0]._engine.to_bytes() == fits[1]._engine.to_bytes()


def test_a_bad_row_is_named(cluster, network):
    det = dice.Detector("energy", head=network.head).fit(network.x)
    x = network.x_test.copy()
    x[250, 3] = np.nan
    scoring = dict(fn_constructor_args=[det, "features"], **actors(1))
    with pytest.raises(Exception, match=r"NaN at row \d+, column 3"):
        dataset_of(x).map_batches(on_ray.Score, **scoring).take_all()
    tolerant = dataset_of(x).map_batches(on_ray.Score, fn_constructor_kwargs={"non_finite": "ood"}, **scoring).take_all()
    assert [row["row"] for row in tolerant if row["row"] == 250 and row["ood"]["is_ood"]] == [250]
