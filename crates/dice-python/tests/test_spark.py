"""Spark: real executors and real serialisation."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest

import dice_ood as dice

pyspark = pytest.importorskip("pyspark")
pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
if shutil.which("java") is None:
    pytest.skip("Spark takes Java", allow_module_level=True)

import pyarrow.parquet  # noqa: E402

import dice_ood.spark as on_spark  # noqa: E402


@pytest.fixture(scope="module")
def spark():
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = pyspark.sql.SparkSession.builder.master("local-cluster[2,1,1024]").appName("dice")
    session = session.config("spark.ui.enabled", "false").config("spark.sql.execution.arrow.maxRecordsPerBatch", 100).getOrCreate()
    yield session
    session.stop()


def frame_of(spark, x, y=None, parts=4):
    frame = pandas.DataFrame({"row": np.arange(len(x)), "features": list(x)})
    if y is not None:
        frame["y"] = y
    return spark.createDataFrame(frame).repartition(parts, "row")


def test_scores_are_those_of_one_machine(spark, network):
    det = dice.Detector("dice(0.7) | energy", head=network.head).fit(network.x, network.y, calibration=network.calibration)
    expected = det(network.x_test)
    frame = frame_of(spark, network.x_test)
    scored = on_spark.score(frame, det, columns="features").orderBy("row")
    rows = scored.select("row", "ood.*").toPandas()
    for name in ("score", "p_value", "is_ood", "prediction"):
        np.testing.assert_array_equal(rows[name], getattr(expected, name))
    assert scored.columns == ["row", "features", "ood"]
    assert scored.filter("ood.is_ood").count() == expected.is_ood.sum()
    spark.udf.register("ood", on_spark.udf(det))
    frame.createOrReplaceTempView("inputs")
    by_sql = spark.sql("select row, ood(features).score as score from inputs order by row").toPandas()
    np.testing.assert_array_equal(by_sql.score, expected.score)


def test_statistics_merge_on_the_driver(spark, network):
    frame = frame_of(spark, network.x, network.y)
    specs = ["dice(0.7) | energy", "knn(5)", "mds"]
    gathered = on_spark.gather(frame, head=network.head, detectors=specs, columns="features", label="y")
    assert gathered.n_rows == len(network.x)
    for spec in specs:
        there = dice.Detector(spec, head=network.head).fit(gathered, calibration=network.calibration)
        here = dice.Detector(spec, head=network.head).fit(network.x, network.y, calibration=network.calibration)
        np.testing.assert_allclose(there.score_samples(network.x_test), here.score_samples(network.x_test), rtol=1e-6)
    # A bank is exact to merge: the same bytes, whatever the partitions.
    alone = dice.Detector("knn(5)").fit(on_spark.gather(frame_of(spark, network.x, parts=7), detectors=["knn(5)"], columns="features"))
    merged = dice.Detector("knn(5)").fit(gathered)
    np.testing.assert_array_equal(alone.score_samples(network.x_test), merged.score_samples(network.x_test))


def killing(marker):
    """Lets batches pass, after the first call has killed the executor under it."""

    def part(batches):
        import os
        import signal

        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            yield from batches
            return
        # The executor started the daemon that started this worker.
        with open(f"/proc/{os.getppid()}/stat") as about:
            executor = int(about.read().rsplit(")", 1)[1].split()[1])
        with open(f"/proc/{executor}/comm") as about:
            assert about.read() == "java\n"
        os.kill(executor, signal.SIGKILL)
        yield from batches

    return part


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the executor is found by /proc")
def test_a_killed_executor_costs_nothing_but_time(spark, network, tmp_path):
    det = dice.Detector("knn(5)", head=network.head).fit(network.x, calibration=network.calibration)
    frame = frame_of(spark, network.x_test)
    scored = on_spark.score(frame.mapInArrow(killing(str(tmp_path / "scoring")), frame.schema), det, columns="features")
    rows = scored.select("row", "ood.score").orderBy("row").toPandas()
    np.testing.assert_array_equal(rows.score, det.score_samples(network.x_test))
    alone = on_spark.gather(frame, detectors=["knn(5)"], columns="features")
    survived = on_spark.gather(frame.mapInArrow(killing(str(tmp_path / "gathering")), frame.schema), detectors=["knn(5)"], columns="features")
    assert survived.n_rows == alone.n_rows == 500
    # Rows come in another order, so that sums may differ in rounding; the bank does not.
    np.testing.assert_allclose(survived.mean_activation, alone.mean_activation, rtol=1e-12)
    with_it, without = (dice.Detector("knn(5)", calibration_fraction=0).fit(statistics) for statistics in (survived, alone))
    np.testing.assert_array_equal(with_it.score_samples(network.far), without.score_samples(network.far))
    assert sorted(os.listdir(tmp_path)) == ["gathering", "scoring"]


def test_a_bad_row_is_named(spark, network):
    det = dice.Detector("energy", head=network.head).fit(network.x)
    x = network.x_test.copy()
    x[250, 3] = np.nan
    with pytest.raises(Exception, match=r"NotFiniteError: partition \d+: features: .*NaN at row \d+ of the partition, column 3"):
        on_spark.score(frame_of(spark, x), det, columns="features").count()
    tolerant = on_spark.score(frame_of(spark, x), det, columns="features", non_finite="ood")
    assert tolerant.filter("row = 250 and ood.is_ood").count() == 1


def test_a_bad_row_of_files_is_named(spark, network, tmp_path):
    """With its file, its partition and its row in that, which lies behind the first batch of a hundred."""
    det = dice.Detector("energy", head=network.head).fit(network.x)
    good = [list(row) for row in network.x_test]
    for name, rows in {
        "a": good,
        "nan": [*good[:250], [*good[250][:3], float("nan"), *good[250][4:]], *good[251:]],
        "null": [*good[:130], None, *good[131:]],
        "short": [*good[:320], good[320][:23], *good[321:]],
    }.items():
        lists = pyarrow.array(rows, pyarrow.list_(pyarrow.float32()))
        pyarrow.parquet.write_table(pyarrow.table({"features": lists}), tmp_path / f"{name}.parquet")
    for name, words in {
        "nan": r"NaN at row 250 of the partition, column 3",
        "null": r"no list at row 130 of the partition",
        "short": r"23 values at row 320 of the partition",
    }.items():
        frame = spark.read.parquet(str(tmp_path / "a.parquet"), str(tmp_path / f"{name}.parquet"))
        assert on_spark.score(frame, det).columns == ["features", "ood"]
        place = rf"file:\S*/{name}\.parquet, partition \d+: \S*features: .*{words}"
        with pytest.raises(Exception, match=place):
            on_spark.score(frame, det).select("ood.score").collect()
    with pytest.raises(Exception, match=r"file:\S*/short\.parquet, partition \d+: \S*features: "):
        on_spark.gather(frame, detectors=["knn(5)"])


def test_rows_of_two_sources_have_no_file(spark, network, tmp_path):
    det = dice.Detector("energy", head=network.head).fit(network.x)
    rows = pyarrow.table({"row": range(500), "features": list(network.x_test)})
    for name in ("a", "b"):
        pyarrow.parquet.write_table(rows, tmp_path / f"{name}.parquet")
    a, b = (spark.read.parquet(str(tmp_path / f"{name}.parquet")) for name in ("a", "b"))
    scored = on_spark.score(a.join(b.select("row"), "row"), det, columns="features").orderBy("row").select("ood.score").toPandas()
    np.testing.assert_array_equal(scored.score, det.score_samples(network.x_test))


def test_a_function_of_pandas_does_the_same(spark, network, monkeypatch):
    """What versions before 4.1 get."""
    monkeypatch.delattr(pyspark.sql.functions, "arrow_udf", raising=False)
    det = dice.Detector("energy", head=network.head).fit(network.x)
    frame = frame_of(spark, network.x_test)
    scored = frame.select("row", on_spark.udf(det)("features").alias("ood")).orderBy("row").select("ood.*").toPandas()
    for name in ("score", "p_value", "is_ood", "prediction"):
        np.testing.assert_array_equal(scored[name], getattr(det(network.x_test), name))


def test_sums_that_are_exact_give_the_same_bytes(spark, network):
    """Features of few digits add up without rounding, in any order: then statistics and detectors are the same bytes."""
    x = np.round(network.x * 16) / 16
    frame = frame_of(spark, x, network.y)
    specs = ["dice(0.7) | energy", "knn(5)"]
    there = on_spark.gather(frame, head=network.head, detectors=specs, columns="features", label="y")
    here = dice.gather(x, network.y, head=network.head, detectors=specs)
    assert there.to_bytes() == here.to_bytes()
    fits = [dice.Detector(specs[0], head=network.head).fit(one, calibration=network.calibration) for one in (there, here)]
    assert fits[0]._engine.to_bytes() == fits[1]._engine.to_bytes()
