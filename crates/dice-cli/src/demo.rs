//! `dice demo`: the whole way from features to decisions, on data that ship inside the binary.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dice_ood::evaluation::{Averages, SetLabel};
use dice_ood::io::files::TemporaryFolder;
use dice_ood::io::{AtomicFile, Dataset, Location, read_head};
use dice_ood::{Artifact, Calibrated, Error, Fit, Fitted, NonFinite, Report, Result, Salience, for_each_block};

use crate::columns::Columns;
use crate::eval::{Comparison, Eval};
use crate::fit::account::{chosen, near_silent};
use crate::network::Running;
use crate::report::{percent, tables};
use crate::said::{Context, print};
use crate::score::{OnNonFinite, Orientation};

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

/// What the choice is compared with; one of its members by itself is the last.
const DETECTORS: [&str; 6] = [DICE, "energy", "msp", "max-logit", "react(0.99) | dice(0.9) | energy", MEMBER];
const DICE: &str = "dice(0.9) | energy";
const MEMBER: &str = "lts";

impl Demo {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let temporary = match &self.extract {
            Some(folder) => TemporaryFolder::create(folder)?,
            None => TemporaryFolder::new()?,
        };
        let folder = temporary.path();
        extract(folder)?;
        print(
            "A DenseNet that reads 8x8 handwritten digits: 256 penultimate features, 10 classes. What it has never seen:\n\
             letters and photo patches. Features and head ship with this program; the images do not matter any more.\n\n",
        )?;
        let fitted = show_fit(folder)?;
        let artifact = &fitted.artifact;
        let report = show_evaluation(folder, context)?;
        show_what_is_kept(artifact, &report)?;
        show_choice(&fitted, &report)?;
        step(5, "Decide on single inputs, by the choice", "dice score detector.safetensors photos.safetensors")?;
        print(&decisions(artifact, folder)?)?;
        match &self.extract {
            Some(folder) => {
                temporary.keep();
                print(&format!("\nThe data and the detector are in {}.\n", folder.display()))
            }
            None => {
                print("\nNow with your own network: dice fit --help. To keep these files: dice demo --extract demo\n")
            }
        }
    }
}

/// Writes the data that ship with the program.
fn extract(folder: &Path) -> Result<()> {
    FILES.iter().try_for_each(|(name, bytes)| {
        let path = folder.join(name);
        let mut file = AtomicFile::create_new(&path)?;
        file.write_all(bytes).map_err(|error| Error::io(&path, error))?;
        file.commit()
    })
}

/// The file of this name.
fn file(folder: &Path, name: &str) -> String {
    folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned()
}

fn show_fit(folder: &Path) -> Result<Fitted> {
    step(
        1,
        "Fit detectors on 1,100 training digits; set thresholds on 348 digits the network has not seen",
        "dice fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -d auto -d ... -o detector.safetensors",
    )?;
    let made = fit(folder)?;
    made.artifact.save(Path::new(&file(folder, "detector")))?;
    print(&fitted(&made.artifact))?;
    Ok(made)
}

fn show_evaluation(folder: &Path, context: &Context) -> Result<Report> {
    step(
        2,
        "How well does each score tell 349 test digits from what they are not?",
        "dice eval detector.safetensors --id test.safetensors --ood letters=letters.safetensors --ood photos=photos.safetensors",
    )?;
    let set = |name: &str| (SetLabel::from(name), file(folder, name));
    let comparison = Comparison {
        artifact: Some(file(folder, "detector").into()),
        id: vec![file(folder, "test")],
        id_labels: None,
        model: None,
        running: Running::default(),
        columns: Columns::default(),
        ood: vec![set("letters"), set("photos")],
        detectors: Vec::new(),
        sort: None,
        scores: false,
        orientation: Orientation::InDistribution,
        at_tpr: 0.95,
        tpr: None,
        check: false,
        bootstrap: 200,
        seed: 0,
        non_finite: OnNonFinite::Reject,
    };
    let eval = Eval { comparison, format: None, all_metrics: false, output: None };
    let report = eval.evaluate(context)?;
    print(&tables(&report, false).iter().map(|table| table.on_terminal()).collect::<Vec<_>>().join("\n"))?;
    Ok(report)
}

fn show_what_is_kept(artifact: &Artifact, report: &Report) -> Result<()> {
    let dice = artifact.detectors().iter().find(|one| one.detector().spec().to_string() == DICE);
    let salience = Salience::measure(
        artifact.head(),
        artifact.statistics(),
        dice.and_then(|calibrated| calibrated.detector().mask()),
    );
    step(3, "What does DICE keep, and does it help here?", "dice inspect detector.safetensors")?;
    let [dice, energy] = [DICE, "energy"].map(|name| average(report, name).map_or(f64::NAN, |average| average.auroc));
    let outcome = if dice > energy { "better" } else { "worse" };
    print(&format!(
        "{} % of the units keep no weight.\n{}\nMeasured on this network, DICE is {outcome} than dense energy: average AUROC {} against \
         {}. On the paper's CIFAR-10\nDenseNet it is better (see the README). No method wins everywhere: compare on your own data before \
         you choose.\n",
        percent(salience.unused_units),
        near_silent(&salience),
        percent(dice),
        percent(energy),
    ))
}

/// Averages over the sets for the detector of this name.
fn average(report: &Report, name: &str) -> Option<Averages> {
    report.detectors.iter().find(|one| one.detector == name)?.average
}

fn show_choice(fitted: &Fitted, report: &Report) -> Result<()> {
    step(
        4,
        "Which one to take, where there are no letters and photos to try it on?",
        "dice fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -o detector.safetensors",
    )?;
    let Some(choice) = &fitted.choice else { return Ok(()) };
    let accepted = |name: &str| average(report, name).map_or(f64::NAN, |average| average.fpr_at_tpr);
    let of = |name: &str| format!("{} %", percent(accepted(name)));
    print(&format!(
        "{}It was chosen from digits alone. Where 95 % of the test digits are accepted, it accepts {} of the letters and photos, \
         {DICE} {},\nenergy {}, and {MEMBER}, one of its members, {} by itself: the sum of evidence carries a member that is bad here.\n",
        chosen(choice),
        of(&choice.spec().to_string()),
        of(DICE),
        of("energy"),
        of(MEMBER),
    ))
}

/// Fits the demo's detectors to its files.
fn fit(folder: &Path) -> Result<Fitted> {
    let head = read_head(Location::parse(&file(folder, "head")), None)?;
    let open = |name: &str| Dataset::new(&[file(folder, name)])?.open();
    let specs = DETECTORS.iter().map(|spec| spec.parse()).collect::<Result<Vec<_>>>()?;
    let fit = Fit::new(Arc::new(head)).auto().calibrate_on(|| open("calibration"));
    specs.into_iter().fold(fit, Fit::detector).features(open("train")?)
}

fn step(number: u32, what: &str, command: &str) -> Result<()> {
    print(&format!("\n\x1b[1m{number}. {what}\x1b[0m\n   $ {command}\n\n"))
}

fn fitted(artifact: &Artifact) -> String {
    let name = |calibrated: &Calibrated| calibrated.detector().spec().to_string();
    let width = artifact.detectors().iter().map(|calibrated| name(calibrated).len()).max().unwrap_or(0);
    let mut text = String::new();
    for calibrated in artifact.detectors() {
        let detector = calibrated.detector();
        let kept = detector
            .mask()
            .map_or(String::new(), |mask| format!(", keeps {} of {} weights", mask.count(), mask.kept().len()));
        if let Some(threshold) = calibrated.threshold() {
            let (low, high) = threshold.interval(0.95);
            let _ = writeln!(
                text,
                "{:width$} accepts a score of at least {:8.4}; realised rate in [{}, {}] %{kept}",
                name(calibrated),
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
    let calibrated = &artifact.detectors()[0];
    let mut text = format!("by {}\n", calibrated.detector().spec());
    for (set, kind) in [("test", "digit"), ("letters", "letter"), ("photos", "photo")] {
        let data = Dataset::new(&[file(folder, set)])?;
        let mut first = Vec::new();
        for_each_block(&mut *data.open()?, |block| {
            let scored = calibrated.detector().score_block(block, NonFinite::Reject)?;
            first.extend(scored.scores.into_iter().take(3 - first.len().min(3)));
            Ok(())
        })?;
        for (index, score) in first.into_iter().enumerate() {
            if let (Some(calibration), Some(threshold)) = (calibrated.calibration(), calibrated.threshold()) {
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
