//! `dice explain`: why one input got its score.

mod html;
mod text;
mod words;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use dice_onnx::{Encoded, ImageSet};
use dice_ood::explanation::{Explanation, Neighbour, Selected, Wanted, nearest, select};
use dice_ood::io::AtomicFile;
use dice_ood::{Error, ErrorKind, Result, Spec};
use serde::Serialize;

use crate::classes::Classes;
use crate::columns::{Columns, recorded};
use crate::data::{Inputs, check_origin, detector, network};
use crate::layout::width_of;
use crate::network::{Network, Running};
use crate::progress::Watched;
use crate::report::json;
use crate::said::{Context, print};
use crate::score::choose;

/// Explain the score of one input: what decided, units, classes, pruning, members of a combination, nearest training inputs.
///
/// Each unit is set to its mean training activation, all others as they are, and the input is scored again: the share of a unit
/// is what its activation adds to the score. That works for every score and combination. Shares need not add up.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// The detector, as written by `dice fit`.
    #[arg(value_name = "DETECTOR")]
    artifact: PathBuf,
    /// Features [N, D] that the input is among, - for standard input; with --model, images or arrays.
    #[arg(required = true, value_name = "FEATURES")]
    inputs: Vec<String>,
    /// The row of the input, counted from 0 over all FEATURES. Not needed where there is one input only.
    #[arg(long, value_name = "N", conflicts_with = "id")]
    row: Option<u64>,
    /// The id of the input, as `dice score` prints it.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Which detector of the file, where it holds several; the first by default.
    #[arg(long, short = 'd', value_name = "SPEC")]
    detector: Option<Spec>,
    /// Training features, to name the five nearest training inputs; with --model, images.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    training: Vec<String>,
    /// The network that the detector was fitted to; FEATURES are then images, prepared as for the fit, or arrays.
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<String>,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
    /// How to print; by default as the extension of --output says (.html .json), else text.
    #[arg(long)]
    format: Option<Format>,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  dice explain detector.safetensors new.npy --row 17
  dice explain detector.safetensors new.parquet --id user-4711 --training train.parquet -o why.html
  dice explain detector.safetensors --model resnet.onnx photo.jpg --training train/ -o why.html

The HTML page holds small pictures of the input and of its neighbours where these are images of their own: files that --model
reads, or ids of features that are paths of images which are there. It needs no other file and runs no script.";

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Format {
    /// One screen, words first.
    Text,
    /// Everything.
    Json,
    /// One page that needs no other file.
    Html,
}

/// All that is told of one input.
#[derive(Serialize)]
struct Account {
    input: Input,
    #[serde(flatten)]
    why: Explanation,
    /// Names of the classes, where they are known.
    #[serde(skip_serializing_if = "Classes::is_empty")]
    class_names: Classes,
    /// Names of the units, where a table had some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unit_names: Vec<String>,
    /// Training inputs that statistics rest on; null for a published mean.
    training_inputs: Option<u64>,
    /// The nearest of the files given as training inputs, where some were.
    training: Option<Vec<Neighbour>>,
}

#[derive(Serialize)]
struct Input {
    file: String,
    row: u64,
    id: String,
    label: Option<i64>,
}

impl Explain {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let others = self.inputs.iter().chain(&self.training).chain(&self.model).map(String::as_str);
        let artifact = detector(&self.artifact, others)?;
        let named = |error: Error| error.file(self.artifact.display());
        let calibrated = choose(&artifact, self.detector.as_ref()).map_err(named)?;
        let network = network(self.model.as_ref(), &artifact, &self.artifact, &self.running, context)?;
        let found = |files: &[String]| -> Result<Inputs<'_>> {
            let inputs = Inputs::find(network.as_ref(), files)?.with_ids();
            let inputs = inputs.fitted_to(&artifact, &self.artifact, &self.columns)?;
            check_origin(&inputs, &artifact, &self.artifact).map_err(|error| self.named_by(error))?;
            Ok(inputs)
        };
        // Both are found before the first is read: a wrong name is told at once.
        let training = (!self.training.is_empty()).then(|| found(&self.training)).transpose()?;
        let chosen = self.chosen(found(&self.inputs)?, network.as_ref(), context)?;
        let why = Explanation::of(calibrated, artifact.statistics(), &chosen.features)
            .map_err(|error| error.file(&chosen.file))?;
        let near = |inputs: Inputs<'_>| {
            nearest(&mut Watched::new(inputs.open(context)?, None, "training", context), &chosen.features)
        };
        let account = Account {
            why,
            class_names: Classes::of(&artifact).map_err(named)?,
            unit_names: recorded(&artifact).map_err(named)?,
            training_inputs: (!artifact.statistics().is_published()).then(|| artifact.statistics().rows()),
            training: training.map(near).transpose()?,
            input: Input { file: chosen.file, row: chosen.row, id: chosen.id, label: chosen.label },
        };
        self.write(&self.render(&account)?)
    }

    /// Images are no features: says what makes some of them.
    fn named_by(&self, error: Error) -> Error {
        match (error.kind(), &self.model) {
            (ErrorKind::Unsupported, None) => {
                error.and_fix("for images, name the network they go through: --model MODEL.onnx")
            }
            _ => error,
        }
    }

    fn wanted(&self) -> Wanted {
        match (&self.row, &self.id) {
            (Some(row), _) => Wanted::Row(*row),
            (None, Some(id)) => Wanted::Id(id.clone()),
            (None, None) => Wanted::Only,
        }
    }

    /// The input asked for. An image in a file of its own is the only one that goes through the network.
    fn chosen(&self, inputs: Inputs<'_>, network: Option<&Network>, context: &Context) -> Result<Selected> {
        let whole = || -> Result<Selected> {
            let several = inputs.files().len() > 1;
            let mut source = Watched::new(inputs.open(context)?, None, "looking", context);
            select(&mut source, &self.wanted(), several).map_err(|error| which(error, &inputs))
        };
        let (Inputs::Images(_, set), Some(network)) = (&inputs, network) else { return whole() };
        let Some((row, entry)) = self.own_file(set)? else { return whole() };
        let alone = Inputs::Images(network, ImageSet::find([&entry.id])?);
        let mut source = alone.open(context)?;
        let found = select(&mut source, &Wanted::Only, false)?;
        Ok(Selected { row, label: entry.label, file: entry.id.clone(), id: entry.id, ..found })
    }

    /// The entry of the image asked for and its place, where exactly one is meant and it has a file of its own; else all are
    /// looked through, which tells what is wrong.
    fn own_file(&self, set: &ImageSet) -> Result<Option<(u64, dice_onnx::Entry)>> {
        let mut found = None;
        let wanted = self.wanted();
        for (row, entry) in set.entries().enumerate() {
            let (row, entry) = (row as u64, entry?);
            let meant = match &wanted {
                Wanted::Only => true,
                Wanted::Row(wanted) => row == *wanted,
                Wanted::Id(id) => entry.id == *id,
            };
            if meant && (found.is_some() || !matches!(entry.image, Encoded::File(_))) {
                return Ok(None);
            }
            if meant {
                found = Some((row, entry));
            }
            if matches!(wanted, Wanted::Row(_)) && found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    fn render(&self, account: &Account) -> Result<String> {
        let extension = self.output.as_ref().and_then(|path| path.extension()).and_then(|extension| extension.to_str());
        let format = self.format.unwrap_or(match extension {
            Some("html" | "htm") => Format::Html,
            Some("json") => Format::Json,
            _ => Format::Text,
        });
        match format {
            Format::Text => Ok(text::text(account, width_of(self.output.as_deref()))),
            Format::Json => json(account),
            Format::Html => Ok(html::page(account)),
        }
    }

    fn write(&self, text: &str) -> Result<()> {
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                let plain = anstream::adapter::strip_str(text).to_string();
                file.write_all(plain.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()
            }
            _ => print(text),
        }
    }
}

/// Says by which flags one of several inputs is named, and which file they are in.
fn which(error: Error, inputs: &Inputs<'_>) -> Error {
    let error = match error.kind() {
        ErrorKind::Ambiguous => error.and_fix("--row N, or --id ID"),
        _ => error,
    };
    error.file(inputs.name())
}

#[cfg(test)]
mod tests;
