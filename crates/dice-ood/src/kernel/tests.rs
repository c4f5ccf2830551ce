use super::naive as reference;
use super::*;
use crate::random::SplitMix64;
use exp::EXP_GROUP;
use ndarray::Array2;

/// Runs the same assertion at every level of this machine.
fn at_every_level(test: impl Fn(Level)) {
    Level::available().into_iter().for_each(test);
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

fn problem(classes: usize, units: usize, density: f64, seed: u64) -> (LinearHead, Mask) {
    let weight = random(classes * units, seed);
    let head = LinearHead::from_rows(weight, random(classes, seed + 1), units).unwrap();
    let mut choice = SplitMix64::new(seed + 2);
    let kept = Array2::from_shape_fn((classes, units), |_| (choice.next() as f64) < density * 2f64.powi(64));
    (head, Mask::new(kept))
}

#[test]
fn agrees_with_the_reference_within_the_higham_bound() {
    at_every_level(|level| {
        // Around chunks, vectors, tiles, groups and pairs; few classes and many.
        let shapes = [
            (1, 1),
            (2, 7),
            (9, 15),
            (10, 16),
            (11, 17),
            (25, 16),
            (31, 129),
            (33, 128),
            (34, 127),
            (64, 513),
            (100, 342),
            (3, 1000),
        ];
        for (classes, units) in shapes {
            for density in [0.0, 0.1, 0.3, 0.79, 1.0] {
                for (clip, temperature) in [(None, 1.0), (Some(0.25), 2.5)] {
                    let (head, mask) = problem(classes, units, density, 7);
                    let kernel = Kernel::at_level(level, &head, Some(&mask), clip).unwrap();
                    let rows = 64 + NARROW + 3;
                    let features = random(rows * units, 11);
                    let mut out = vec![Summary::default(); rows];
                    assert!(kernel.summarise(&features, temperature, &mut Scratch::default(), &mut out));
                    for (row, summary) in features.chunks(units).zip(&out) {
                        let logits = reference::logits(&head, Some(&mask), clip, row);
                        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        // Higham: |error| <= gamma_n sum |w||x|, n products and n additions, u = 2^-24.
                        let size = reference::logit_magnitude(&head, Some(&mask), clip, row);
                        let unit_roundoff = f64::from(f32::EPSILON) / 2.0;
                        let bound = gamma(units + 2) * size;
                        assert!(
                            (f64::from(summary.max) - max).abs() <= bound,
                            "{level} [{classes}, {units}] {density}"
                        );
                        let energy = f64::from(summary.max) + temperature * summary.rest.ln_1p();
                        let expected = reference::energy(&logits, temperature);
                        // The logits' own error, then that of one subtraction, exp (2 ulp) and a group's sum.
                        let rest_bound = 2.0 * bound / temperature + (EXP_GROUP as f64 + 40.0) * unit_roundoff * 2.0;
                        assert!(
                            (energy - expected).abs() <= bound + temperature * rest_bound,
                            "{level} [{classes}, {units}] {density}: {energy} for {expected}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn a_batch_is_its_rows_bit_for_bit() {
    at_every_level(|level| {
        for (classes, density) in [(37, 0.2), (37, 0.9), (10, 0.2)] {
            let (head, mask) = problem(classes, 300, density, 3);
            let kernel = Kernel::at_level(level, &head, Some(&mask), Some(0.5)).unwrap();
            let rows = 2 * 64 + NARROW + 3;
            let features = random(rows * 300, 5);
            let mut scratch = Scratch::default();
            let mut batch = vec![Summary::default(); rows];
            assert!(kernel.summarise(&features, 1.0, &mut scratch, &mut batch));
            for size in [1, 2, 5, NARROW, 15, 16, 32, 64, 65] {
                let mut parts = vec![Summary::default(); rows];
                for (rows, out) in features.chunks(size * 300).zip(parts.chunks_mut(size)) {
                    assert!(kernel.summarise(rows, 1.0, &mut scratch, out));
                }
                assert_eq!(parts, batch, "{}, {size} at a time", kernel.describe());
            }
        }
    });
}

#[test]
fn extreme_logits_keep_their_order_and_precision() {
    at_every_level(|level| {
        // Logits are the features themselves.
        let head = LinearHead::from_rows(vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], vec![0.0; 3], 3).unwrap();
        let kernel = Kernel::at_level(level, &head, None, None).unwrap();
        let summarise = |row: [f32; 3]| {
            let mut out = [Summary::default()];
            assert!(kernel.summarise(&row, 1.0, &mut Scratch::default(), &mut out));
            out[0]
        };
        let equal = summarise([5.0; 3]);
        assert_eq!((equal.max, equal.argmax, equal.rest), (5.0, 0, 2.0));
        let sure = summarise([0.0, 60.0, 30.0]);
        assert_eq!(sure.argmax, 1);
        assert!((sure.rest / (-30f64).exp() - 1.0).abs() < 1e-6, "{}", sure.rest);
        assert!(summarise([1e30, -1e30, 0.0]).rest < 3e-38);
        assert_eq!(summarise([1e-42, 0.0, 0.0]).argmax, 0);
    });
}

#[test]
fn every_value_that_is_not_finite_is_seen_also_where_no_weight_is_kept() {
    at_every_level(|level| {
        for (classes, units, rows) in [(3, 40, 80), (40, 300, 80), (40, 5, 80), (40, 300, 3), (40, 300, 1), (3, 40, 1)]
        {
            let mut kept = Array2::from_elem((classes, units), false);
            kept.column_mut(1).fill(true);
            let head = LinearHead::from_rows(vec![1.0; classes * units], vec![0.0; classes], units).unwrap();
            let kernel = Kernel::at_level(level, &head, Some(&Mask::new(kept)), Some(0.5)).unwrap();
            let clean = vec![1e30; rows * units];
            let mut out = vec![Summary::default(); rows];
            assert!(kernel.summarise(&clean, 1.0, &mut Scratch::default(), &mut out));
            for place in (0..rows * units).step_by(7).chain([rows * units - 1]) {
                for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut features = clean.clone();
                    features[place] = value;
                    let finite = kernel.summarise(&features, 1.0, &mut Scratch::default(), &mut out);
                    assert!(!finite, "{}: {value} at {place}", kernel.describe());
                }
            }
        }
    });
}

#[test]
fn the_layout_follows_shape_and_density() {
    at_every_level(|level| {
        let described = |classes, units, density| {
            let (head, mask) = problem(classes, units, density, 1);
            Kernel::at_level(level, &head, Some(&mask), None).unwrap().describe()
        };
        assert!(described(10, 342, 1.0).contains("by rows"));
        assert!(described(200, 342, 0.1).contains("sparse"));
        assert!(described(200, 342, 1.0).contains("dense"));
    });
}

/// Higham's gamma_n: the relative error of n roundings in f32.
fn gamma(roundings: usize) -> f64 {
    let error = roundings as f64 * f64::from(f32::EPSILON) / 2.0;
    error / (1.0 - error)
}

/// A dot product in f64 plus `bias`, and the sum of the sizes of its terms.
fn exact(row: &[f32], weights: &[f32], bias: f32) -> (f64, f64) {
    let terms = || row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).chain([f64::from(bias)]);
    (terms().sum(), terms().map(f64::abs).sum())
}

#[test]
fn logits_are_the_sums_of_products_within_the_higham_bound() {
    at_every_level(|level| {
        for (classes, units, density) in [(1, 1, 1.0), (10, 16, 0.5), (10, 342, 1.0), (37, 300, 0.2), (37, 300, 0.95)] {
            let (head, mask) = problem(classes, units, density, 21);
            let kernel = Kernel::at_level(level, &head, Some(&mask), Some(0.5)).unwrap();
            let rows = 2 * 64 + NARROW + 3;
            let features = random(rows * units, 23);
            let mut logits = vec![f32::NAN; rows * classes];
            assert!(kernel.logits(&features, &mut Scratch::default(), &mut logits));
            for (row, logits) in features.chunks(units).zip(logits.chunks(classes)) {
                let clipped: Vec<f32> = row.iter().map(|value| value.min(0.5)).collect();
                for (class, logit) in logits.iter().enumerate() {
                    let weights: Vec<f32> = (0..units)
                        .map(|unit| if mask.kept()[(class, unit)] { head.weight()[(class, unit)] } else { 0.0 })
                        .collect();
                    let (exact, size) = exact(&clipped, &weights, head.bias()[class]);
                    // A product and an addition for each unit, or fewer by a tree, then the bias.
                    let bound = gamma(units + 2) * size;
                    assert!((f64::from(*logit) - exact).abs() <= bound, "{}: {logit} for {exact}", kernel.describe());
                }
            }
        }
    });
}

#[test]
fn summaries_do_not_depend_on_what_else_is_wanted() {
    at_every_level(|level| {
        for (classes, density) in [(37, 0.2), (37, 0.9), (10, 0.2)] {
            let (head, mask) = problem(classes, 300, density, 3);
            let kernel = Kernel::at_level(level, &head, Some(&mask), Some(0.5)).unwrap();
            for rows in [1, 5, 2 * 64 + NARROW + 3] {
                let features = random(rows * 300, 5);
                let mut scratch = Scratch::default();
                let alone = [1.0, 2.5, 0.1].map(|temperature| {
                    let mut out = vec![Summary::default(); rows];
                    assert!(kernel.summarise(&features, temperature, &mut scratch, &mut out));
                    out
                });
                let mut logits_alone = vec![0.0; rows * classes];
                assert!(kernel.logits(&features, &mut scratch, &mut logits_alone));
                let mut logits = vec![0.0; rows * classes];
                let [mut a, mut b, mut c] = [(); 3].map(|()| vec![Summary::default(); rows]);
                let summaries =
                    &mut [Summaries::at(1.0, &mut a), Summaries::at(2.5, &mut b), Summaries::at(0.1, &mut c)];
                assert!(kernel.visit(&features, &mut scratch, Wanted { summaries, logits: Some(&mut logits) }));
                assert_eq!([a, b, c], alone, "{}", kernel.describe());
                assert_eq!(logits, logits_alone);
                for (summary, logits) in alone[0].iter().zip(logits.chunks(classes)) {
                    assert_eq!(summary.max, logits[summary.argmax as usize]);
                    assert!(logits.iter().all(|logit| *logit <= summary.max));
                }
            }
        }
    });
}

/// Outputs, units: around groups, slabs, chunks and tiles.
const MATRICES: [[usize; 2]; 8] = [[1, 1], [5, 7], [6, 16], [7, 17], [13, 129], [100, 600], [97, 33], [801, 40]];

#[test]
fn a_product_is_its_dot_products_within_the_higham_bound() {
    at_every_level(|level| {
        for [outputs, units] in MATRICES {
            let (matrix, bias) = (random(outputs * units, 1), random(outputs, 2));
            for bias in [None, Some(&bias[..])] {
                let product = Product::at_level(level, &matrix, [outputs, units], bias).unwrap();
                assert_eq!(product.outputs(), outputs);
                for rows in [1, 2, NARROW, 25, product.task() + 27] {
                    let features = random(rows * units, 3);
                    let mut out = vec![f32::NAN; rows * outputs];
                    assert!(product.multiply(&features, &mut Scratch::default(), &mut out));
                    for (row, out) in features.chunks(units).zip(out.chunks(outputs)) {
                        for (output, found) in out.iter().enumerate() {
                            let weights = &matrix[output * units..][..units];
                            let (exact, size) = exact(row, weights, bias.map_or(0.0, |bias| bias[output]));
                            let bound = gamma(units + 1) * size;
                            assert!(
                                (f64::from(*found) - exact).abs() <= bound,
                                "{level} [{outputs}, {units}], {rows} rows: {found} for {exact}"
                            );
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_product_does_not_depend_on_batch_or_slab() {
    at_every_level(|level| {
        for [outputs, units] in MATRICES {
            let matrix = random(outputs * units, 1);
            let mut product = Product::at_level(level, &matrix, [outputs, units], None).unwrap();
            let rows = product.task() + 64 + 27;
            let features = random(rows * units, 3);
            let mut scratch = Scratch::default();
            let mut whole = vec![0.0; rows * outputs];
            assert!(product.multiply(&features, &mut scratch, &mut whole));
            for size in [1, 2, NARROW, 16, 40, 64, 65] {
                let mut parts = vec![0.0; rows * outputs];
                for (rows, out) in features.chunks(size * units).zip(parts.chunks_mut(size * outputs)) {
                    assert!(product.multiply(rows, &mut scratch, out));
                }
                assert_eq!(parts, whole, "{level} [{outputs}, {units}], {size} rows at a time");
            }
            for slab in [1, 2, 5] {
                product.set_slab(slab);
                let mut slabs = vec![f32::NAN; rows * outputs];
                assert!(product.multiply(&features, &mut scratch, &mut slabs));
                assert_eq!(slabs, whole, "{level} [{outputs}, {units}], slabs of {slab} groups");
            }
        }
    });
}

#[test]
fn slabs_show_every_output_of_every_row_once_and_in_order() {
    at_every_level(|level| {
        let (outputs, units) = (61, 20);
        let mut product = Product::at_level(level, &random(outputs * units, 1), [outputs, units], None).unwrap();
        product.set_slab(2);
        let rows = product.task() + 30;
        let mut next = vec![0; rows];
        assert!(product.for_each_slab(&random(rows * units, 3), &mut Scratch::default(), |slab| {
            assert_eq!(slab.values.len(), slab.rows.len() * slab.outputs.len());
            for row in slab.rows {
                assert_eq!(next[row], slab.outputs.start);
                next[row] = slab.outputs.end;
            }
        }));
        assert!(next.iter().all(|next| *next == outputs));
    });
}

#[test]
fn a_product_refuses_what_is_not_finite_and_shapes_that_disagree() {
    at_every_level(|level| {
        let product = Product::at_level(level, &[1.0; 60], [3, 20], None).unwrap();
        for rows in [1, 8, 16, 64, 70] {
            for place in [0, rows * 20 - 1] {
                let mut features = vec![1e30; rows * 20];
                let mut out = vec![0.0; rows * 3];
                assert!(product.multiply(&features, &mut Scratch::default(), &mut out));
                features[place] = f32::NAN;
                assert!(!product.multiply(&features, &mut Scratch::default(), &mut out), "{level}, {rows}");
            }
        }
    });
    let kind = |shape, bias| Product::new(&[1.0; 6], shape, bias).unwrap_err().kind();
    assert_eq!(kind([2, 4], None), ErrorKind::Shape);
    assert_eq!(kind([usize::MAX, 2], None), ErrorKind::Shape);
    assert_eq!(kind([2, 3], Some(&[0.0][..])), ErrorKind::Shape);
    assert_eq!(kind([0, 6], None), ErrorKind::Empty);
    assert_eq!(kind([6, 0], None), ErrorKind::Empty);
}

/// The specification of the second moment: each entry one chain of additions in the order of the rows.
fn moment_of(rows: &[f32], units: usize, mut sums: Vec<f64>) -> Vec<f64> {
    for row in rows.chunks(units) {
        for i in 0..units {
            for j in i..units {
                sums[i * units + j] += f64::from(row[i]) * f64::from(row[j]);
            }
        }
    }
    sums
}

#[test]
fn a_second_moment_is_its_chains_bit_for_bit_at_every_level_and_split() {
    for units in [1, 3, 8, 23, 24, 25, 50, 97] {
        let rows = random(300 * units, 5);
        // What is below the diagonal stays as it was.
        let before: Vec<f64> = random(units * units, 6).into_iter().map(f64::from).collect();
        let expected = moment_of(&rows, units, before.clone());
        at_every_level(|level| {
            for size in [1, 7, 128, 129, 300] {
                let mut sums = before.clone();
                rows.chunks(size * units).for_each(|rows| moment::at_level(level, &mut sums, rows, units));
                assert_eq!(sums, expected, "{level}, {units} units, {size} rows at a time");
            }
            let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let mut sums = before.clone();
            one_thread.install(|| moment::at_level(level, &mut sums, &rows, units));
            assert_eq!(sums, expected);
            moment::at_level(level, &mut sums, &[], units);
            assert_eq!(sums, expected);
        });
    }
}

/// Masks of random levels that nest, the sparsest first: weight `i` is kept from mask `level[i]` on.
fn nesting(classes: usize, units: usize, masks: usize, seed: u64) -> Vec<Mask> {
    let mut choice = SplitMix64::new(seed);
    let level = Array2::from_shape_fn((classes, units), |_| choice.below(masks as u64 + 1));
    (0..masks as u64).map(|mask| Mask::new(level.mapv(|level| level <= mask))).collect()
}

/// Under every mask, the logits of all masks in one pass against the naive sum, within the bound of a single kernel: a logit is one
/// chain of the same products.
#[test]
fn masks_that_nest_agree_with_the_reference_within_the_higham_bound() {
    at_every_level(|level| {
        for (classes, units, count, clip) in [
            (1, 1, 1, None),
            (3, 40, 20, Some(0.25)),
            (10, 342, 20, None),
            (12, 1700, 6, Some(0.5)),
            (37, 300, 5, Some(0.5)),
            (130, 17, 3, None),
            (70, 600, 3, None),
        ] {
            let (head, _) = problem(classes, units, 1.0, 7);
            let masks = nesting(classes, units, count, 5);
            let all: Vec<Option<&Mask>> = masks.iter().map(Some).chain([None]).collect();
            let nested = Nested::at_level(level, &head, &all, clip).unwrap();
            let rows = 64 + NARROW + 3;
            let features = random(rows * units, 11);
            let mut out = vec![vec![0.0f32; rows * classes]; all.len()];
            let mut summaries = vec![vec![Summary::default(); rows]; all.len()];
            let mut parts: Vec<[Summaries<'_>; 1]> =
                summaries.iter_mut().map(|out| [Summaries::at(1.0, &mut out[..])]).collect();
            let mut wanted: Vec<Wanted<'_, '_>> = parts
                .iter_mut()
                .zip(&mut out)
                .map(|(summaries, logits)| Wanted { summaries, logits: Some(&mut logits[..]) })
                .collect();
            assert!(nested.visit(&features, &mut Scratch::default(), &mut wanted));
            for ((mask, logits), summaries) in all.iter().zip(&out).zip(&summaries) {
                for ((row, found), summary) in features.chunks(units).zip(logits.chunks(classes)).zip(summaries) {
                    let expected = reference::logits(&head, *mask, clip, row);
                    let bound = gamma(units + 2) * reference::logit_magnitude(&head, *mask, clip, row);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!((f64::from(*found) - expected).abs() <= bound, "{level} [{classes}, {units}]");
                    }
                    assert_eq!(summary.max, found[summary.argmax as usize]);
                }
            }
        }
    });
}

#[test]
fn a_batch_of_masks_that_nest_is_its_rows_bit_for_bit() {
    at_every_level(|level| {
        for classes in [10, 37, 70] {
            let (head, _) = problem(classes, 300, 1.0, 3);
            let masks = nesting(classes, 300, 4, 9);
            let all: Vec<Option<&Mask>> = masks.iter().map(Some).collect();
            let nested = Nested::at_level(level, &head, &all, Some(0.5)).unwrap();
            let rows = 64 + NARROW + 3;
            let features = random(rows * 300, 5);
            let scored = |size: usize| {
                let mut out = vec![vec![Summary::default(); rows]; all.len()];
                for (index, features) in features.chunks(size * 300).enumerate() {
                    let range = index * size..index * size + features.len() / 300;
                    let mut parts: Vec<[Summaries<'_>; 1]> =
                        out.iter_mut().map(|out| [Summaries::at(1.0, &mut out[range.clone()])]).collect();
                    let mut wanted: Vec<Wanted<'_, '_>> =
                        parts.iter_mut().map(|summaries| Wanted { summaries, logits: None }).collect();
                    assert!(nested.visit(features, &mut Scratch::default(), &mut wanted));
                }
                out
            };
            let batch = scored(rows);
            for size in [1, 2, NARROW, 15, 32, 64, 65] {
                assert_eq!(scored(size), batch, "{level}, {size} at a time");
            }
        }
    });
}

#[test]
fn masks_that_keep_nothing_leave_the_bias() {
    at_every_level(|level| {
        for classes in [3, 70] {
            let (head, _) = problem(classes, 40, 1.0, 1);
            let none = Mask::new(Array2::from_elem((classes, 40), false));
            let nested = Nested::at_level(level, &head, &[Some(&none), Some(&none)], None).unwrap();
            let mut scratch = Scratch::default();
            // What an earlier use has left in memory is no number that zeros could be multiplied with.
            scratch.tile.take(100_000).fill(f32::NAN);
            let mut out = vec![vec![0.0; 5 * classes]; 2];
            let mut wanted: Vec<Wanted<'_, '_>> =
                out.iter_mut().map(|out| Wanted { summaries: &mut [], logits: Some(&mut out[..]) }).collect();
            assert!(nested.visit(&random(5 * 40, 2), &mut scratch, &mut wanted));
            for row in out.iter().flat_map(|out| out.chunks(classes)) {
                assert_eq!(row, head.bias().to_vec(), "{level}");
            }
        }
    });
}

#[test]
fn masks_that_do_not_nest_and_rows_that_are_not_finite_are_refused() {
    let (head, _) = problem(3, 40, 1.0, 1);
    let masks = nesting(3, 40, 2, 1);
    assert_eq!(Nested::new(&head, &[Some(&masks[1]), Some(&masks[0])], None).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(Nested::new(&head, &[], None).unwrap_err().kind(), ErrorKind::Argument);
    let other = Mask::new(Array2::from_elem((3, 39), true));
    assert_eq!(Nested::new(&head, &[Some(&other)], None).unwrap_err().kind(), ErrorKind::Shape);
    at_every_level(|level| {
        let nested = Nested::at_level(level, &head, &[Some(&masks[0]), None], None).unwrap();
        for place in [0, 39, 40 * 70 - 1] {
            let mut features = random(40 * 70, 2);
            features[place] = f32::NAN;
            let mut wanted = [Wanted::default(), Wanted::default()];
            assert!(!nested.visit(&features, &mut Scratch::default(), &mut wanted), "{level}: {place}");
        }
    });
}
