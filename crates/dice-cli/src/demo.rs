//! `dice demo`: the whole way from features to decisions, on data that ship inside the binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dice_ood::io::Dataset;
use dice_ood::{Artifact, Error, NonFinite, Result, Salience, for_each_block};

use crate::eval::Eval;
use crate::fit::{Fit, verdict};
use crate::network::{Choices, Running};
use crate::report::{Format, percent};
use crate::score::{OnNonFinite, Orientation};
use crate::{Context, print};

/// Fit, evaluate and decide on a small real network whose features ship with this program.
///
/// A small DenseNet trained on the UCI handwritten digits (all 349 test digits right), with letters and photo patches as
/// what it has never seen. Nothing is downloaded.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Write the data and the fitted detector to this new directory, to try the commands yourself.
    #[arg(long, value_name = "DIRECTORY")]
    extract: Option<PathBuf>,
}

const FILES: [(&str, &[u8]); 6] = [
    ("head.safetensors", include_bytes!("../demo/head.safetensors")),
    ("train.safetensors", include_bytes!("../demo/train.safetensors")),
    ("calibration.safetensors", include_bytes!("../demo/calibration.safetensors")),
    ("test.safetensors", include_bytes!("../demo/test.safetensors")),
    ("letters.safetensors", include_bytes!("../demo/letters.safetensors")),
    ("photos.safetensors", include_bytes!("../demo/photos.safetensors")),
];

const DETECTORS: [&str; 5] = ["dice(0.9) | energy", "energy", "msp", "max-logit", "react(0.99) | dice(0.9) | energy"];

impl Demo {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let temporary = tempfile::tempdir().map_err(|error| Error::io("temporary directory", error))?;
        let folder = match &self.extract {
            Some(folder) => {
                std::fs::create_dir(folder).map_err(|error| Error::io(folder, error))?;
                folder.as_path()
            }
            None => temporary.path(),
        };
        for (name, bytes) in FILES {
            std::fs::write(folder.join(name), bytes).map_err(|error| Error::io(folder.join(name), error))?;
        }
        let file = |name: &str| folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned();
        print(
            "A DenseNet that reads 8x8 handwritten digits: 256 penultimate features, 10 classes. What it has never seen:\n\
             letters and photo patches. Features and head ship with this program; the images do not matter any more.\n\n",
        )?;

        let fit = Fit {
            features: vec![file("train")],
            labels: None,
            head: Some(file("head")),
            model: None,
            images: Vec::new(),
            choices: Choices::default(),
            running: Running::default(),
            detectors: DETECTORS.iter().map(|spec| spec.parse()).collect::<Result<_>>()?,
            tpr: 0.95,
            calibration: vec![file("calibration")],
            calibration_fraction: 0.1,
            seed: 0,
            statistics: Vec::new(),
            save_statistics: None,
            output: folder.join("detector.safetensors"),
        };
        step(
            1,
            "Fit detectors on 1,100 training digits; set thresholds on 348 digits the network has not seen",
            "dice fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -d ... -o detector.safetensors",
        )?;
        let quiet = Context { quiet: true };
        let artifact = fit.fit(&quiet)?;
        artifact.save(&fit.output)?;
        print(&fitted(&artifact))?;

        step(
            2,
            "How well does each score tell 349 test digits from what they are not?",
            "dice eval detector.safetensors --id test.safetensors --ood letters=letters.safetensors --ood photos=photos.safetensors",
        )?;
        let eval = Eval {
            artifact: Some(fit.output.clone()),
            id: vec![file("test")],
            id_labels: None,
            model: None,
            running: Running::default(),
            ood: vec![("letters".into(), file("letters")), ("photos".into(), file("photos"))],
            detectors: Vec::new(),
            scores: false,
            orientation: Orientation::InDistribution,
            at_tpr: 0.95,
            bootstrap: 200,
            seed: 0,
            format: None,
            all_metrics: false,
            non_finite: OnNonFinite::Reject,
            output: None,
        };
        let report = eval.evaluate(context)?;
        print(&eval.tables(&report).iter().map(|table| table.render(Format::Table)).collect::<Vec<_>>().join("\n"))?;

        let mask = artifact.detectors[0].detector.mask();
        let salience = Salience::measure(&artifact.head, &artifact.statistics, mask);
        step(3, "Why does DICE help here, or not?", "dice inspect detector.safetensors")?;
        let [dice, energy] = [0, 1].map(|index| report.detectors[index].average.auroc);
        let outcome = if dice > energy { "better" } else { "worse" };
        print(&format!(
            "{}\nHere DICE is {outcome} than dense energy: average AUROC {} against {}. On the paper's CIFAR-10 DenseNet, where three\n\
             quarters of the units keep no weight at p = 0.9, it is better (see the README). No method wins everywhere:\n\
             compare on your own data before you choose.\n",
            wrapped(&verdict(&salience)),
            percent(dice),
            percent(energy),
        ))?;

        step(4, "Decide on single inputs", "dice score detector.safetensors photos.safetensors")?;
        print(&decisions(&artifact, folder)?)?;
        match &self.extract {
            Some(folder) => print(&format!("\nThe data and the detector are in {}.\n", folder.display())),
            None => {
                print("\nNow with your own network: dice fit --help. To keep these files: dice demo --extract demo\n")
            }
        }
    }
}

fn step(number: u32, what: &str, command: &str) -> Result<()> {
    print(&format!("\n\x1b[1m{number}. {what}\x1b[0m\n   $ {command}\n\n"))
}

fn fitted(artifact: &Artifact) -> String {
    let mut text = String::new();
    for calibrated in &artifact.detectors {
        let detector = &calibrated.detector;
        let kept = detector
            .mask()
            .map_or(String::new(), |mask| format!(", keeps {} of {} weights", mask.count(), mask.kept().len()));
        if let Some(threshold) = &calibrated.threshold {
            let (low, high) = threshold.interval(0.95);
            let _ = writeln!(
                text,
                "{:32} accepts a score of at least {:8.4}; realised rate in [{}, {}] %{kept}",
                detector.spec().to_string(),
                threshold.score(),
                percent(low),
                percent(high)
            );
        }
    }
    text
}

/// The first three inputs of each set, as the first detector sees them.
fn decisions(artifact: &Artifact, folder: &Path) -> Result<String> {
    let calibrated = &artifact.detectors[0];
    let mut text = format!("by {}\n", calibrated.detector.spec());
    for (set, kind) in [("test", "digit"), ("letters", "letter"), ("photos", "photo")] {
        let path = folder.join(format!("{set}.safetensors"));
        let data = Dataset::new(&[path.to_string_lossy().into_owned()])?;
        let mut first = Vec::new();
        for_each_block(&mut *data.open()?, |block| {
            let scored = calibrated.detector.score_block(block, NonFinite::Reject)?;
            first.extend(scored.scores.into_iter().take(3 - first.len().min(3)));
            Ok(())
        })?;
        for (index, score) in first.into_iter().enumerate() {
            if let (Some(calibration), Some(threshold)) = (&calibrated.calibration, &calibrated.threshold) {
                let _ = writeln!(
                    text,
                    "  {kind:6} {index}: score {score:8.4}, p-value {:.3} -> {}",
                    calibration.p_value(score),
                    threshold.decide(score)
                );
            }
        }
    }
    Ok(text)
}

/// Breaks a paragraph at about 110 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < 110 => {
                if !line.is_empty() {
                    line.push(' ');
                }
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
