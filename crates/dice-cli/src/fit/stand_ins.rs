//! What fitted detectors reject of distorted in-distribution images, which stand in for out-of-distribution ones.

use dice_onnx::{Distortion, ImageSet};
use dice_ood::{Calibrated, Decision, FeatureSource, NonFinite, Result, for_each_block};
use serde::Serialize;

use super::Fit;
use crate::network::Network;
use crate::progress::Watched;
use crate::report::{Table, count, percent};
use crate::said::Context;

/// Images that are distorted unless another number is asked for.
const USUALLY: u32 = 100;

/// What detectors reject of each stand-in.
#[derive(Serialize)]
pub(crate) struct StandIns {
    /// Images that were distorted, each in every way.
    images: usize,
    /// The detectors, those that decide.
    detectors: Vec<String>,
    stand_ins: Vec<StandIn>,
}

#[derive(Serialize)]
struct StandIn {
    name: &'static str,
    /// `near` where parts of the image survive, else `far`: as which sets it ranks detectors.
    distance: &'static str,
    /// The share that each detector rejects.
    rejected: Vec<f64>,
}

impl Fit {
    /// Distorts some of the images that thresholds rest on, or else of those that were fitted to; none where nobody would be
    /// told.
    pub(super) fn stand_ins(
        &self,
        network: &Network,
        detectors: &[Calibrated],
        context: &Context,
    ) -> Result<Option<StandIns>> {
        let deciding: Vec<&Calibrated> = detectors.iter().filter(|one| one.threshold().is_some()).collect();
        let told = !context.quiet || self.format.is_some();
        let most = self.stand_ins.unwrap_or(USUALLY) as usize;
        if most == 0 || deciding.is_empty() || !told || network.takes_arrays() {
            return Ok(None);
        }
        let images = if self.calibration.is_empty() { &self.images } else { &self.calibration };
        let set = ImageSet::find(images)?.thinned(most);
        let mut found = StandIns {
            images: 0,
            detectors: deciding.iter().map(|one| one.detector().spec().to_string()).collect(),
            stand_ins: Vec::new(),
        };
        // An image that is left out was told of when it was first read.
        let silent = Context { quiet: true };
        for distortion in Distortion::ALL {
            let source = network.stand_ins(&set, distortion, &silent)?;
            let what = format!("distorting images: {distortion}");
            let (images, rejected) = rejected(Watched::new(source, None, &what, context), &deciding)?;
            found.images = images;
            let distance = if distortion.is_near() { "near" } else { "far" };
            found.stand_ins.push(StandIn { name: distortion.name(), distance, rejected });
        }
        Ok(Some(found))
    }
}

/// So many images, in words.
fn images(images: usize) -> String {
    format!("{} image{}", count(images), if images == 1 { "" } else { "s" })
}

/// How many inputs there are, and the share that each detector rejects.
fn rejected(mut source: impl FeatureSource, detectors: &[&Calibrated]) -> Result<(usize, Vec<f64>)> {
    let (mut rows, mut rejected) = (0, vec![0; detectors.len()]);
    for_each_block(&mut source, |block| {
        rows += block.rows();
        for (one, rejected) in detectors.iter().zip(&mut rejected) {
            let scored = one.detector().score_block(block, NonFinite::OutOfDistribution)?;
            let rejects = |score: &&f64| {
                one.threshold().is_some_and(|threshold| threshold.decide(**score) == Decision::OutOfDistribution)
            };
            *rejected += scored.scores.iter().filter(rejects).count();
        }
        Ok(())
    })?;
    Ok((rows, rejected.into_iter().map(|rejected| rejected as f64 / rows.max(1) as f64).collect()))
}

impl StandIns {
    /// A table with a line for each detector.
    pub(crate) fn text(&self) -> String {
        let title = format!("Rejected of {}, each distorted, in percent", images(self.images));
        let header: Vec<&str> = std::iter::once("detector").chain(self.stand_ins.iter().map(|one| one.name)).collect();
        let mut table = Table::new(title, &header, 1);
        for (place, detector) in self.detectors.iter().enumerate() {
            let rejected = self.stand_ins.iter().map(|one| percent(one.rejected[place]));
            table.rows.push(std::iter::once(detector.clone()).chain(rejected).collect());
        }
        let of = |distance: &str| {
            let names = self.stand_ins.iter().filter(|one| one.distance == distance).map(|one| one.name);
            names.collect::<Vec<_>>().join(", ")
        };
        format!(
            "\n{}{} rank detectors much like near sets, {} much like far ones. What no detector rejects may be in-distribution: a \
             network can be invariant to it.\n",
            table.on_terminal(),
            of("near"),
            of("far")
        )
    }
}
