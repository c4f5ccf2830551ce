//! `dice inspect`: what is in a file.

use std::fmt::Write;

use dice_onnx::{HeadOptions, Model, ModelInput};
use dice_ood::artifact::read_statistics;
use dice_ood::io::{Dataset, Format, Location, TensorInfo, find_head, list};
use dice_ood::{Artifact, Error, ErrorKind, Result, for_each_block};

use crate::columns::Columns;
use crate::data::is_onnx;
use crate::fit::account::{behind, describe};
use crate::names;
use crate::names::quoted;
use crate::records::in_short;
use crate::report::{count, percent};
use crate::said::print;

/// Show what is in a detector, head, statistics or feature file, in a folder of a network, or in an ONNX model.
///
/// Shapes, the detectors with their sparsity per class and threshold, where they came from; for features their range,
/// share of zeros and of negative values; for a model where its head is and what feeds it (MODEL.onnx#NODE names another).
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// The file, or a folder that transformers or timm saved.
    file: String,
    #[command(flatten)]
    columns: Columns,
}

impl Inspect {
    pub(crate) fn run(&self) -> Result<()> {
        let location = Location::parse(&self.file);
        if location.path.as_os_str() == "-" {
            return Err(Error::new(ErrorKind::Unsupported, "standard input").expected("a file"));
        }
        if is_onnx(&location) {
            let model = Model::open(&location.path)?;
            let options = HeadOptions { head: location.name.clone(), features: None };
            print(&model.describe_with(&options))?;
            if model.is_detector() {
                return Ok(());
            }
            // The account has the reason.
            model.find_head(&options).map_err(|error| {
                Error::new(error.kind(), "none, for the reason that its account gives")
                    .file(location.path.display())
                    .tensor("head")
                    .expected("one to build a detector on")
            })?;
            return print(&how_to_fit(&model, &self.file));
        }
        let (format, tensors) = list(&location.path)?;
        if matches!(format, Format::Folder | Format::Index) {
            return self.network(&location, format, &tensors);
        }
        let is_artifact = tensors.iter().any(|tensor| tensor.name == "head.weight")
            && tensors.iter().any(|tensor| tensor.name.starts_with("statistics."));
        if is_artifact && location.name.is_none() {
            return print(&artifact(&Artifact::load(&location.path)?));
        }
        if tensors.iter().any(|tensor| tensor.name.starts_with("statistics.")) && location.name.is_none() {
            let statistics = read_statistics(&location)?;
            return print(&format!("Statistics of {}, {} units\n", behind(&statistics), count(statistics.units())));
        }
        let mut text = format!("{format} file, {} tensors\n", tensors.len());
        if tensors.is_empty() {
            text = format!("{format} file\n");
        }
        let width = tensors.iter().map(|tensor| tensor.name.chars().count()).max().unwrap_or(0);
        for tensor in &tensors {
            let _ = writeln!(text, "  {:width$}  {tensor}", tensor.name);
        }
        if tensors.iter().any(looks_like_a_head)
            && let Ok(found) = find_head(&location, None)
        {
            let (classes, units) = (found.head.classes(), found.head.units());
            let _ = writeln!(text, "Head: {} classes, {} units. {found}.", count(classes), count(units));
        }
        if !tensors.is_empty() && tensors.iter().all(|tensor| tensor.shape.len() < 2) {
            // Vectors: a statistic, labels or scores.
            return print(&text);
        }
        match features(&self.file, &self.columns) {
            Ok(description) => text += &description,
            // A file that is no feature file is no error here; one that is, and broken, is.
            Err(error)
                if tensors.is_empty()
                    || matches!(error.kind(), ErrorKind::NotFinite | ErrorKind::Malformed | ErrorKind::Io) =>
            {
                print(&text)?;
                return Err(error);
            }
            Err(_) => {}
        }
        print(&text)
    }
}

/// The command that fits a detector to `model`, called `file`, and what it takes.
fn how_to_fit(model: &Model, file: &str) -> String {
    let fit = |inputs: &str| format!("Fit       dice fit --model {} {inputs} -o detector.safetensors\n", quoted(file));
    if model.images().is_some() {
        return fit("--images FOLDER");
    }
    let Ok(inputs) = ModelInput::all(model) else { return String::new() };
    let described: Vec<String> = inputs.iter().map(ToString::to_string).collect();
    let named: Vec<String> = inputs.iter().map(|input| format!("{:?}: ...", input.name)).collect();
    format!(
        "{}          of arrays {}\n          in Python, numpy.savez(\"train.npz\", **{{{}}})\n",
        fit("--inputs train.npz"),
        described.join("; "),
        named.join(", ")
    )
}

impl Inspect {
    /// A folder of a network, or the index of its weights: its head is what it is here for.
    fn network(&self, location: &Location, format: Format, tensors: &[TensorInfo]) -> Result<()> {
        let mut text = format!("{format}, {} tensors\n", count(tensors.len()));
        // The rest of a network is long, and of no use here.
        let matrices: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.shape.len() == 2).collect();
        let last = matrices.len().saturating_sub(LAST_LISTED);
        for tensor in &matrices[last..] {
            let _ = writeln!(text, "  {}  {tensor}", names::shown(&tensor.name));
        }
        if last > 0 {
            let _ = writeln!(text, "  and {} other matrices", count(last));
        }
        print(&text)?;
        let found = find_head(location, None)?;
        let mut text =
            format!("Head: {} classes, {} units. {found}.\n", count(found.head.classes()), count(found.head.units()));
        if let [first, .., last] = &found.classes[..] {
            let _ = writeln!(text, "Classes: from {} to {}.", names::shown(first), names::shown(last));
        }
        if let Some(note) = &found.note {
            let _ = writeln!(text, "Note: {note}");
        }
        print(&text)
    }
}

/// Matrices of a network that are listed.
const LAST_LISTED: usize = 8;

fn looks_like_a_head(tensor: &TensorInfo) -> bool {
    tensor.name.ends_with("weight") || matches!(tensor.name.as_str(), "W" | "w")
}

/// Streams features once and says what they are like.
fn features(file: &str, columns: &Columns) -> Result<String> {
    let data = Dataset::new(&[file.to_owned()])?.with_columns(&columns.chosen());
    let mut source = data.open()?;
    let (units, layout) = (source.units(), source.layout());
    let (mut rows, mut zeros, mut negative, mut labelled) = (0usize, 0usize, 0usize, false);
    let (mut low, mut high, mut sum) = (f32::INFINITY, f32::NEG_INFINITY, 0.0f64);
    let mut not_finite = 0usize;
    for_each_block(&mut *source, |block| {
        rows += block.rows();
        labelled |= block.labels.is_some();
        for value in &block.features {
            if !value.is_finite() {
                not_finite += 1;
                continue;
            }
            low = low.min(*value);
            high = high.max(*value);
            sum += f64::from(*value);
            zeros += usize::from(*value == 0.0);
            negative += usize::from(*value < 0.0);
        }
        Ok(())
    })?;
    if rows == 0 {
        return Ok(format!("Features: no rows of {} units.\n", count(units)));
    }
    let values = (rows * units - not_finite).max(1) as f64;
    let mut text = format!(
        "Features: {} rows of {} units{}; from {low} to {high}, mean {:.5}, {} % zero, {} % negative.\n",
        count(rows),
        count(units),
        if labelled { ", with labels" } else { "" },
        sum / values,
        percent(zeros as f64 / values),
        percent(negative as f64 / values),
    );
    if let (Some(first), Some(last)) = (layout.units.first(), layout.units.last()) {
        let _ = writeln!(text, "Columns of features: `{first}` to `{last}`, in the order of the table.");
    }
    if let Some(ids) = &layout.ids {
        let _ = writeln!(text, "Ids: `{ids}`.");
    }
    for note in &layout.notes {
        let _ = writeln!(text, "Note: {note}.");
    }
    if not_finite > 0 {
        let _ = writeln!(text, "{} values are NaN or infinite.", count(not_finite));
    }
    if negative > 0 {
        text += "Features can be negative: DICE ranks weight times mean, which assumes that a unit speaks by being positive; \
                 see contribution=absolute-mean.\n";
    }
    Ok(text)
}

fn artifact(artifact: &Artifact) -> String {
    let head = artifact.head();
    let mut text = format!(
        "Detector file: head of {} classes and {} units, {} detector{}\n",
        count(head.classes()),
        count(head.units()),
        artifact.detectors().len(),
        if artifact.detectors().len() == 1 { "" } else { "s" }
    );
    for (key, value) in artifact.provenance() {
        let _ = writeln!(text, "  {key}: {}", in_short(key, value));
    }
    let _ = writeln!(text, "  fitted to: {}", behind(artifact.statistics()));
    for calibrated in artifact.detectors() {
        let detector = calibrated.detector();
        let _ = writeln!(text, "\n\x1b[1m{}\x1b[0m  (kernel: {})", detector.spec(), detector.kernel());
        text += &describe(calibrated, artifact.statistics());
        if let Some(mask) = detector.mask() {
            let mut per_class = mask.count_per_class();
            let _ = writeln!(text, "  {} of {} units keep no weight.", count(mask.unused_units()), count(head.units()));
            if per_class.len() <= 20 {
                let shown: Vec<String> = per_class.iter().map(ToString::to_string).collect();
                let _ = writeln!(text, "  Weights kept by class: {}.", shown.join(" "));
            } else {
                per_class.sort_unstable();
                let _ = writeln!(
                    text,
                    "  Weights kept by class: from {} to {}, median {}.",
                    per_class[0],
                    per_class[per_class.len() - 1],
                    per_class[per_class.len() / 2]
                );
            }
        }
    }
    text
}
