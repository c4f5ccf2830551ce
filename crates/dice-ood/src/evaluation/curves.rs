//! Curves as few points, and where a bootstrap says that they lie. In-distribution inputs are positive.

use serde::Serialize;

use crate::metrics::{Curve, Interval};

/// How far a curve may be from the line between two of its points, in one of its two rates.
const ERROR: f64 = 0.004;
/// Places of a band.
const PLACES: u32 = 64;

/// How one detector does on one set at every threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curves {
    /// The ROC curve by its corners: straight lines between them are within 0.004 of it.
    pub roc: Vec<RocPoint>,
    /// Precision by recall likewise, from the smallest recall there is.
    pub precision: Vec<PrecisionPoint>,
    /// FPR at each TPR from 0.9 to 0.99 in steps of 0.005, of all inputs.
    pub high_tpr: Vec<FprAt>,
    /// Where TPR lies at an FPR, at each FPR by itself with 95 % confidence; empty without replicates.
    pub roc_band: Vec<BandAt>,
    /// Where precision lies at a recall, likewise.
    pub precision_band: Vec<BandAt>,
}

/// A point of a ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RocPoint {
    /// The share of out-of-distribution inputs that are accepted.
    pub fpr: f64,
    /// The share of in-distribution inputs that are accepted.
    pub tpr: f64,
}

/// A point of a precision-recall curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrecisionPoint {
    /// The share of in-distribution inputs that are accepted.
    pub recall: f64,
    /// The share of accepted inputs that are in-distribution.
    pub precision: f64,
}

/// [`Metrics::fpr_at_tpr`](crate::metrics::Metrics::fpr_at_tpr) at one TPR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FprAt {
    /// The TPR.
    pub tpr: f64,
    /// The FPR there.
    pub fpr: f64,
    /// Its 95 % bootstrap interval, where there were replicates.
    pub interval: Option<Interval>,
}

/// Where a rate lies at one value of another one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BandAt {
    /// The other one.
    pub at: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

fn tprs() -> impl Iterator<Item = f64> {
    (180..=198).map(|step| f64::from(step) / 200.0)
}

/// FPR of a band: dense where ROC curves are steep.
fn fprs() -> impl Iterator<Item = f64> {
    (0..=PLACES).map(|place| (f64::from(place) / f64::from(PLACES)).powi(2))
}

fn recalls() -> impl Iterator<Item = f64> {
    (1..=PLACES).map(|place| f64::from(place) / f64::from(PLACES))
}

/// FPR at [`tprs`], TPR at [`fprs`] and precision at [`recalls`], one after the other, of groups of equal scores, the highest first.
pub(super) fn rates(groups: &[(u32, u32)]) -> Vec<f64> {
    let (mut of_tpr, mut of_fpr, mut of_recall) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tprs, mut fprs, mut recalls) = (tprs().peekable(), fprs().peekable(), recalls().peekable());
    let mut before = 0.0;
    for Step { fpr, tpr, precision } in steps(groups) {
        while tprs.next_if(|wanted| tpr >= *wanted).is_some() {
            of_tpr.push(fpr);
        }
        while fprs.next_if(|most| fpr > *most).is_some() {
            of_fpr.push(before);
        }
        while recalls.next_if(|wanted| tpr >= *wanted).is_some() {
            of_recall.push(precision);
        }
        before = tpr;
    }
    of_fpr.extend(fprs.map(|_| before));
    [of_tpr, of_fpr, of_recall].concat()
}

/// What is so where all inputs down to some score are accepted.
struct Step {
    fpr: f64,
    tpr: f64,
    precision: f64,
}

fn steps(groups: &[(u32, u32)]) -> impl Iterator<Item = Step> {
    let count = |(ids, oods): (u64, u64), group: &(u32, u32)| (ids + u64::from(group.0), oods + u64::from(group.1));
    let (ids, oods) = groups.iter().fold((0, 0), count);
    groups.iter().scan((0, 0), move |so_far, group| {
        *so_far = count(*so_far, group);
        let (id, ood) = (so_far.0 as f64, so_far.1 as f64);
        // Of no inputs none is out-of-distribution: drawn groups can be empty.
        let precision = if id + ood > 0.0 { id / (id + ood) } else { 1.0 };
        Some(Step { fpr: ood / oods as f64, tpr: id / ids as f64, precision })
    })
}

impl Curves {
    /// The curves of all inputs, with the intervals of [`rates`] where there are some.
    pub(super) fn of(curve: &Curve, intervals: &[Interval]) -> Self {
        let groups = curve.groups();
        let roc = std::iter::once((0.0, 0.0)).chain(steps(groups).map(|step| (step.fpr, step.tpr)));
        let precision = steps(groups).filter(|step| step.tpr > 0.0).map(|step| (step.tpr, step.precision));
        let mut intervals = intervals.iter().copied();
        let high_tpr = tprs().zip(rates(groups));
        let high_tpr = high_tpr.map(|(tpr, fpr)| FprAt { tpr, fpr, interval: intervals.next() }).collect();
        let band = |(at, Interval { low, high })| BandAt { at, low, high };
        let roc_band = fprs().zip(intervals.by_ref()).map(band).collect();
        Self {
            roc: thinned(roc).into_iter().map(|(fpr, tpr)| RocPoint { fpr, tpr }).collect(),
            precision: thinned(precision)
                .into_iter()
                .map(|(recall, precision)| PrecisionPoint { recall, precision })
                .collect(),
            high_tpr,
            roc_band,
            precision_band: recalls().zip(intervals).map(band).collect(),
        }
    }
}

/// A curve by as many of its points as keep lines between them within [`ERROR`] of it, in one of the two directions. The first
/// coordinate must not fall.
fn thinned(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut last = None;
    // Between two kept points the curve lies in the rectangle from one to the other, as wide as the second coordinate varies.
    let (mut low, mut high) = (0.0, 0.0);
    for here in points {
        let Some((x, y)) = last.replace(here) else {
            kept.push(here);
            (low, high) = (here.1, here.1);
            continue;
        };
        let from = kept[kept.len() - 1].0;
        let too_far = |from: f64, low: f64, high: f64| (here.0 - from).min(here.1.max(high) - here.1.min(low)) > ERROR;
        if too_far(from, low, high) {
            if kept.last() != Some(&(x, y)) {
                kept.push((x, y));
            }
            (low, high) = (y, y);
            if too_far(x, low, high) {
                kept.push(here);
                (low, high) = (here.1, here.1);
            }
        }
        (low, high) = (here.1.min(low), here.1.max(high));
    }
    kept.extend(last.filter(|last| kept.last() != Some(last)));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn curve() -> Curve {
        let mut random = SplitMix64::new(4);
        let id: Vec<f64> = (0..20_000).map(|_| 0.3 + uniform(&mut random).powi(2)).collect();
        let ood: Vec<f64> = (0..5_000).map(|_| uniform(&mut random)).collect();
        Curve::new(&id, &ood).unwrap()
    }

    /// How far a point is from the line through points, in the direction in which it is nearer.
    fn off(points: &[(f64, f64)], (x, y): (f64, f64)) -> f64 {
        let on = |a: (f64, f64), b: (f64, f64)| {
            let beside = |at: f64, a: f64, b: f64| (at - a.max(b)).max(a.min(b) - at).max(0.0);
            let up = if b.0 > a.0 { (y - a.1 - (b.1 - a.1) * (x - a.0) / (b.0 - a.0)).abs() } else { f64::INFINITY };
            let across =
                if b.1 != a.1 { (x - a.0 - (b.0 - a.0) * (y - a.1) / (b.1 - a.1)).abs() } else { f64::INFINITY };
            let up = if beside(x, a.0, b.0) > 0.0 { f64::INFINITY } else { up };
            let across = if beside(y, a.1, b.1) > 0.0 { f64::INFINITY } else { across };
            up.min(across)
        };
        points.windows(2).map(|two| on(two[0], two[1])).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn curves_of_few_points_are_near_the_curves() {
        let curve = curve();
        let found = Curves::of(&curve, &[]);
        let roc: Vec<(f64, f64)> = found.roc.iter().map(|point| (point.fpr, point.tpr)).collect();
        let precision: Vec<(f64, f64)> = found.precision.iter().map(|point| (point.recall, point.precision)).collect();
        assert!(roc.len() < 600 && precision.len() < 600, "{} and {}", roc.len(), precision.len());
        for step in steps(curve.groups()) {
            assert!(off(&roc, (step.fpr, step.tpr)) <= ERROR, "{}, {}", step.fpr, step.tpr);
            let far = if step.tpr > 0.0 { off(&precision, (step.tpr, step.precision)) } else { 0.0 };
            assert!(far <= ERROR, "{}, {}: {far}", step.tpr, step.precision);
        }
        let area = |points: &[(f64, f64)]| -> f64 {
            points.windows(2).map(|two| (two[1].0 - two[0].0) * (two[1].1 + two[0].1) / 2.0).sum()
        };
        let metrics = curve.metrics(0.95);
        assert!((area(&roc) - metrics.auroc).abs() < ERROR && (area(&precision) - metrics.aupr_in).abs() < ERROR);
        assert_eq!((roc.last(), precision.last().map(|end| end.0)), (Some(&(1.0, 1.0)), Some(1.0)));
        assert!(found.roc_band.is_empty() && found.high_tpr.iter().all(|one| one.interval.is_none()));
    }

    #[test]
    fn rates_are_those_of_the_metrics_and_bands_hold_the_curve() {
        let curve = curve();
        let (intervals, more) = curve.intervals_observed(0.95, 400, 0.95, 3, &rates, &|| ());
        let found = Curves::of(&curve, &more);
        for one in &found.high_tpr {
            assert_eq!(one.fpr, curve.metrics(one.tpr).fpr_at_tpr, "{}", one.tpr);
        }
        let at = found.high_tpr.iter().find(|one| one.tpr == 0.95).unwrap();
        assert_eq!(at.interval, Some(intervals.fpr_at_tpr));
        let all = rates(curve.groups());
        let (count, of_roc) = (found.high_tpr.len(), found.roc_band.len());
        assert_eq!((all.len(), of_roc, found.precision_band.len()), (count + 129, 65, 64));
        let held = |band: &[BandAt], rates: &[f64]| {
            band.iter().zip(rates).all(|(band, rate)| band.low <= *rate && *rate <= band.high)
        };
        assert!(held(&found.roc_band, &all[count..]) && held(&found.precision_band, &all[count + of_roc..]));
        // At an FPR of f the threshold is 1 - f, and TPR is 1 - sqrt(0.7 - f): by the delta method its variance is that of a share of
        // 20,000 inputs and the squared slope times that of a share of 5,000.
        let band = found.roc_band[32];
        let (tpr, slope) = (1.0 - 0.45f64.sqrt(), 0.5 / 0.45f64.sqrt());
        let error = (tpr * (1.0 - tpr) / 20_000.0 + slope.powi(2) * 0.25 * 0.75 / 5_000.0).sqrt();
        let reach = (band.high - band.low) / (2.0 * 1.96 * error);
        assert!(band.at == 0.25 && (reach - 1.0).abs() < 0.2, "{band:?}: {reach} times as wide as expected");
    }

    #[test]
    fn sides_that_are_one_score_and_sides_apart_have_curves() {
        for (id, ood) in [(vec![1.0; 3], vec![1.0; 2]), (vec![2.0, 3.0], vec![0.0]), (vec![0.0], vec![2.0, 3.0])] {
            let curve = Curve::new(&id, &ood).unwrap();
            let (_, more) = curve.intervals_observed(0.95, 5, 0.95, 0, &rates, &|| ());
            let found = Curves::of(&curve, &more);
            assert_eq!((found.roc[0].fpr, found.roc.last().unwrap().tpr), (0.0, 1.0));
            assert_eq!(found.precision.last().unwrap().recall, 1.0);
            assert!(found.high_tpr.iter().all(|one| one.fpr == curve.metrics(one.tpr).fpr_at_tpr));
        }
    }
}
