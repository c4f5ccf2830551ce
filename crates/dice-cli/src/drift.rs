//! What a quantised network makes in another runtime, or at another level of its optimisation, than a detector was fitted with.

use std::sync::Once;

use dice_onnx::{Network, Origin, Runtime};
use dice_ood::io::Location;
use dice_ood::{Artifact, Block, Calibrated, FeatureSource, Result};

use crate::said::Context;

/// Inputs that are compared.
const ROWS: usize = 32;

/// A network that rounds differently than it did for the fit, which is told once.
pub(crate) struct Drift {
    /// What ran it for the fit, and what runs it now.
    ran_by: [String; 2],
    /// As it ran for the fit, where that runtime is at hand.
    fitted: Option<Network>,
    /// The first detector of the file.
    calibrated: Calibrated,
    told: Once,
}

impl Drift {
    /// Of `network`, which `given` runs; `None` where it rounds as it did for the fit that `recorded` tells of.
    pub(crate) fn of(
        network: &Network,
        file: &Location,
        recorded: &Origin,
        given: &Runtime,
        artifact: &Artifact,
    ) -> Option<Self> {
        if !network.rounds_differently(recorded) {
            return None;
        }
        let fitted = at_hand(recorded, given).and_then(|runtime| Network::of_origin(file, recorded, &runtime).ok());
        let ran_by = [recorded.ran_by(), network.origin().ran_by()];
        Some(Self { ran_by, fitted, calibrated: artifact.detectors()[0].clone(), told: Once::new() })
    }

    /// Warns, with what the first of some inputs show; `open` makes the features of these inputs.
    pub(crate) fn tell<'a>(
        &'a self,
        network: &'a Network,
        open: impl Fn(&'a Network) -> Result<Box<dyn FeatureSource + 'a>>,
        context: &Context,
    ) {
        self.told.call_once(|| {
            let [before, now] = &self.ran_by;
            let measured = match &self.fitted {
                None => "How far apart they are is not measured, as the former is not at hand.".into(),
                Some(fitted) => self.compared(&open, fitted, network).unwrap_or_else(|error| {
                    format!("How far apart they are could not be measured, because: {error}.")
                }),
            };
            context.warn(format_args!(
                "this network is quantised, and rounds in other places than at the fit: then {before} ran it, now {now}.\n{measured}\n\
                 Name with --runtime what ran it at the fit, or fit again."
            ));
        });
    }

    fn compared<'a>(
        &self,
        open: &impl Fn(&'a Network) -> Result<Box<dyn FeatureSource + 'a>>,
        fitted: &'a Network,
        network: &'a Network,
    ) -> Result<String> {
        let [before, now] = [first_rows(open(fitted)?)?, first_rows(open(network)?)?];
        let detector = self.calibrated.detector();
        let [scores, others] = [detector.score(before.view())?, detector.score(now.view())?];
        let features = furthest(&before.features, &now.features) / largest(&before.features);
        let scored = scores.iter().zip(&others).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let turned = self.calibrated.threshold().map(|threshold| {
            let turned =
                scores.iter().zip(&others).filter(|(a, b)| threshold.decide(**a) != threshold.decide(**b)).count();
            format!(", and {turned} decisions turn")
        });
        Ok(format!(
            "On the first {} inputs features differ by up to {:.2} % of the largest, scores of '{}' by up to {scored:.3}{}.",
            before.rows(),
            100.0 * features,
            detector.spec(),
            turned.unwrap_or_default(),
        ))
    }
}

/// The runtime of the fit, where the process can have it.
fn at_hand(recorded: &Origin, given: &Runtime) -> Option<Runtime> {
    let named = |runtime: &Runtime| runtime.name() == recorded.runtime;
    match given {
        _ if named(&Runtime::BuiltIn) => Some(Runtime::BuiltIn),
        Runtime::OnnxRuntime { library, .. } if named(given) => {
            let level = recorded.level.as_deref()?.parse().ok()?;
            Some(Runtime::OnnxRuntime { library: library.clone(), level })
        }
        _ => None,
    }
}

/// The first [`ROWS`] rows of `source`, or all.
fn first_rows(mut source: Box<dyn FeatureSource + '_>) -> Result<Block> {
    let (mut all, mut block) = (Block::default(), Block::default());
    all.restart(source.units(), 0);
    while all.rows() < ROWS {
        source.read(&mut block, ROWS - all.rows())?;
        if block.rows() == 0 {
            break;
        }
        all.features.extend_from_slice(&block.features);
    }
    Ok(all)
}

fn largest(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).fold(f64::MIN_POSITIVE, f64::max)
}

fn furthest(some: &[f32], others: &[f32]) -> f64 {
    some.iter().zip(others).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max)
}
