"""Scoring on Spark: seconds for millions of rows from Parquet, and the share of them inside `score_arrow`.

    .venv/bin/python bench/peers/spark.py [--rows 5000000] [--units 342] [--master 'local-cluster[2,1,1024]'] [--folder FOLDER]

Needs the package, pyspark 4 and Java; writes rows x units x 4 bytes to FOLDER and removes them. Real executors, each of one core and one thread of
ours. `score` keeps all columns, so that features go to Python and back: a second run does the same with constant scores, which is what Spark takes
by itself. Seconds inside `score_arrow` are added up by an accumulator, and divided by those inside all tasks. Scores of the first file are asserted to be those
of one machine. Prints Markdown.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import pyarrow
import pyarrow.parquet
from pyspark.sql import SparkSession

import dice_ood as dice
import dice_ood.spark

SPEC = "dice(0.9) | energy"
ROWS_OF_A_FILE = 125_000


def features(rng, weight, rows):
    """Rectified features of random classes."""
    labels = rng.integers(len(weight), size=rows)
    return np.maximum(weight[labels] + rng.standard_normal((rows, weight.shape[1]), np.float32), 0)


def make(folder, rng, weight, rows):
    """Files of an id and a list of features; the features of the first."""
    first = None
    for place, start in enumerate(range(0, rows, ROWS_OF_A_FILE)):
        x = features(rng, weight, min(ROWS_OF_A_FILE, rows - start))
        first = x if first is None else first
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.reshape(-1)), x.shape[1]).cast(pyarrow.list_(pyarrow.float32()))
        table = pyarrow.table({"id": np.arange(start, start + len(x)), "features": lists})
        pyarrow.parquet.write_table(table, folder / f"{place:04}.parquet", row_group_size=12_500, compression="none", use_dictionary=False)
    return first


def session(master):
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {"spark.ui.enabled": "false", "spark.executorEnv.RAYON_NUM_THREADS": "1", "spark.sql.execution.arrow.maxRecordsPerBatch": 5_000}
    builder = SparkSession.builder.master(master).appName("dice")
    for name, value in settings.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def constant(batch):
    """What `score_arrow` gives, of nothing."""
    rows = batch.num_rows
    arrays = [np.zeros(rows), np.ones(rows), np.zeros(rows, bool), np.zeros(rows, np.int64)]
    return pyarrow.StructArray.from_arrays([pyarrow.array(array) for array in arrays], ["score", "p_value", "is_ood", "prediction"])


def run(spark, frame, schema, found_of):
    """Seconds of all of it, inside tasks, and inside `found_of`, for which `mapInArrow` does what `dice_ood.spark.score` does."""
    inside, ours = (spark.sparkContext.accumulator(0.0) for _ in range(2))

    def part(batches):
        start = time.perf_counter()
        for batch in batches:
            called = time.perf_counter()
            found = found_of(batch)
            ours.add(time.perf_counter() - called)
            yield pyarrow.RecordBatch.from_arrays([*batch.columns, found], names=[*batch.schema.names, "ood"])
        inside.add(time.perf_counter() - start)

    seconds = written(frame.mapInArrow(part, schema))
    return seconds, inside.value, ours.value


def written(frame):
    """Seconds in which every row is made and thrown away."""
    start = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--units", type=int, default=342)
    parser.add_argument("--master", default="local-cluster[2,1,1024]")
    parser.add_argument("--folder", help="where the rows are written to; a temporary folder otherwise")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(10, arguments.units)).astype(np.float32)
    detector = dice.Detector(SPEC, head=(weight / 10, np.zeros(10))).fit(features(rng, weight, 50_000))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = pathlib.Path(name)
        first = make(folder, rng, weight, arguments.rows)
        size = sum(file.stat().st_size for file in folder.iterdir())
        spark = session(arguments.master)
        frame = spark.read.parquet(name)
        scored = dice.spark.score(spark.read.parquet(str(folder / "0000.parquet")), detector, columns="features").orderBy("id").select("ood.score").toPandas()
        np.testing.assert_array_equal(scored.score, detector.score_samples(first))
        held = spark.sparkContext.broadcast(detector)
        schema = dice.spark.score(frame, detector, columns="features").schema
        print(f"{arguments.rows:,} x {arguments.units} f32, {size / 1e9:.2f} GB of Parquet, {SPEC}, {arguments.master}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| what | seconds | rows a second | inside `score_arrow`, s | of the seconds of tasks |\n| --- | --- | --- | --- | --- |")
        for what, found_of in [("Spark alone, constant scores", constant), ("scored", lambda batch: dice.score_arrow(batch, held.value, columns="features"))]:
            seconds, inside, ours = run(spark, frame, schema, found_of)
            print(f"| {what} | {seconds:.1f} | {arguments.rows / seconds:,.0f} | {ours:.1f} | {ours / inside:.1%} |")
        seconds = written(dice.spark.score(frame, detector, columns="features"))
        print(f"| `dice_ood.spark.score`, which knows the file of each row | {seconds:.1f} | {arguments.rows / seconds:,.0f} | | |")
        spark.stop()


if __name__ == "__main__":
    main()
