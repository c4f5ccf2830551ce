//! `dice diagnose`: what pruning does inside a network, and whether it will help.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dice_ood::diagnosis::{Diagnose as Diagnosing, Diagnosis, Kind, Sample, Simulation};
use dice_ood::evaluation::SetLabel;
use dice_ood::io::{AtomicFile, Dataset};
use dice_ood::{Artifact, Error, ErrorKind, FeatureSource, Result, Spec};

use crate::columns::{Columns, tell};
use crate::data::{dataset, head};
use crate::eval::parse_set;
use crate::layout::width_of;
use crate::progress::Bar;
use crate::said::{Context, print};

mod text;

/// Say what DICE does inside a network, and what to expect of it on near and on far OOD inputs.
///
/// From features and head: what the kept weights carry, used and silent units, neural collapse, output variance before and
/// after, the condition of the paper's lemma, and all of it at other sparsities. Labels add accuracies; --id, held-out inputs;
/// --ood and --standin, what is gained on them. Near and far are told apart, each with the rule that says so and how
/// often that rule was right.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diagnose {
    /// Penultimate features [N, D] of in-distribution training inputs, with labels beside them where there are some.
    #[arg(value_name = "FEATURES", required_unless_present = "simulate", requires = "head")]
    features: Vec<String>,
    /// Class labels [N] of the features, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "features")]
    labels: Option<String>,
    /// The linear head: weight [C, D] and bias [C]; or the ONNX model or detector that it is part of.
    #[arg(long, value_name = "FILE", requires = "features")]
    head: Option<String>,
    /// In-distribution features that the network was not trained on, for all but the fit; the training features otherwise.
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "features")]
    id: Vec<String>,
    /// Labels of --id, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "id")]
    id_labels: Option<String>,
    /// An out-of-distribution set; repeat for several. near:NAME=FILE and far:NAME=FILE say how far it is from the training data:
    /// what is measured on it is then what is expected.
    #[arg(long, value_name = "[near:|far:]NAME=FILE", value_parser = parse_set, requires = "features")]
    ood: Vec<(SetLabel, String)>,
    /// Features of distorted in-distribution inputs that stand in for out-of-distribution ones: flipped, rotated or mixed images
    /// for near, phase-scrambled or zoomed ones for far.
    #[arg(long, value_name = "[near:|far:]NAME=FILE", value_parser = parse_set, requires = "features")]
    standin: Vec<(SetLabel, String)>,
    /// What to diagnose: [SHAPING |] SPARSITY | energy.
    #[arg(long, short, value_name = "SPEC", default_value = "dice(0.9) | energy")]
    detector: Spec,
    /// Also draw the paper's lemma: independent normal units with the means and variances of yours, or without FEATURES with
    /// made-up ones.
    #[arg(long)]
    simulate: bool,
    /// Seed of --simulate.
    #[arg(long, default_value_t = 0, requires = "simulate")]
    seed: u64,
    #[command(flatten)]
    columns: Columns,
    /// How to print; by default as the extension of --output says.
    #[arg(long)]
    format: Option<DiagnoseFormat>,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum DiagnoseFormat {
    /// Sentences, and the numbers behind them.
    Text,
    /// Everything, for programs.
    Json,
}

const EXAMPLES: &str = "Examples:
  dice diagnose train.safetensors --head head.safetensors
  dice diagnose train.npy --labels y.npy --head model.pth --id val.npy --ood near:cifar100=c100.npy --ood far:svhn=svhn.npy
  dice diagnose train.npy --head model.pth --standin near:flip=flipped.npy --standin far:zoom=zoomed.npy
  dice diagnose train.npy --head model.pth -d 'ras | dice(0.9) | energy' --format json
  dice diagnose train.npy --head model.pth --simulate
  dice diagnose --simulate

Intervals are of 95 %: a jackknife over 32 groups of rows, for gains in AUROC that of DeLong. docs/DIAGNOSE.md explains
every number and lists the networks that the rules were tried on.";

impl Diagnose {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let text = match self.features.is_empty() {
            true => self.render(&Simulation::of_normal_units(4000, self.seed, 0.9)?, text::simulation)?,
            false => {
                let width = width_of(self.output.as_deref());
                self.render(&self.diagnose(context)?, |found| text::diagnosis(found, width))?
            }
        };
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                let plain = anstream::adapter::strip_str(&text).to_string();
                file.write_all(plain.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()
            }
            _ => print(&text),
        }
    }

    fn render<T: serde::Serialize>(&self, found: &T, text: impl Fn(&T) -> String) -> Result<String> {
        let json = self.output.as_ref().and_then(|path| path.extension()).is_some_and(|extension| extension == "json");
        match self.format {
            Some(DiagnoseFormat::Json) => crate::report::json(found),
            None if json => crate::report::json(found),
            _ => Ok(text(found)),
        }
    }

    fn diagnose(&self, context: &Context) -> Result<Diagnosis> {
        let training = self.training()?;
        self.refuse_detector(&training)?;
        let opened = training.open()?;
        let (layout, units, name) = (opened.layout(), opened.units(), training.names()[0].to_string());
        drop(opened);
        tell(&layout, &name, context);
        let (head, _) = head(self.head.as_deref().unwrap_or_default(), units, context)?;
        let head = Arc::new(head);
        head.check_features(units).map_err(|error| {
            let stray = layout.one_too_many(units, head.units());
            stray.unwrap_or(error).file(&name)
        })?;
        let of = |files: &[String], labels: Option<&String>| -> Result<Dataset> {
            let data = dataset(files, labels)?.with_columns(&self.columns.chosen());
            Ok(data.with_units(head.units(), &layout.units))
        };
        // All are found before the first is read: a wrong name is told at once.
        let id = match self.id.is_empty() {
            true => None,
            false => Some(of(&self.id, self.id_labels.as_ref())?),
        };
        let sets = self.ood.iter().map(|set| (set, Kind::OutOfDistribution));
        let sets = sets.chain(self.standin.iter().map(|set| (set, Kind::StandIn)));
        let sets: Vec<(&SetLabel, Kind, Dataset)> = sets
            .map(|((set, file), kind)| Ok((set, kind, of(std::slice::from_ref(file), None)?.without_labels())))
            .collect::<Result<_>>()?;
        let again = || open(&training);
        let mut diagnosing = Diagnosing::new(Arc::clone(&head), self.detector.clone())?.progress(Bar::new(context));
        if let Some(id) = &id {
            diagnosing = diagnosing.in_distribution(&*id.names()[0], || open(id));
        }
        for (set, kind, data) in &sets {
            diagnosing = diagnosing.sample(Sample::new(&*set.name, *kind, set.distance, move || open(data)));
        }
        if self.simulate {
            diagnosing = diagnosing.simulate(self.seed);
        }
        // What is wrong with values or labels is wrong in a file, and blocks name theirs; the rest are arguments.
        diagnosing.run(&again).map_err(|error| if error.parts().tensor.is_some() { error.file(&name) } else { error })
    }

    /// A detector file in the place of the features is told as such.
    fn refuse_detector(&self, training: &Dataset) -> Result<()> {
        let file = &training.files()[0];
        match file.name.is_none() && file.path.is_file() && Artifact::load(&file.path).is_ok() {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Argument, "a detector")
                .file(file.path.display())
                .expected("features [N, D]")
                .fix(format!(
                    "give the features that it was fitted to; --head {} takes its head",
                    file.path.display()
                ))),
        }
    }

    /// The training features, which are read twice unless there are held-out ones.
    fn training(&self) -> Result<Dataset> {
        let streams =
            self.features.iter().chain(&self.id).chain(self.ood.iter().chain(&self.standin).map(|(_, file)| file));
        if streams.filter(|file| *file == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        let training = dataset(&self.features, self.labels.as_ref())?.with_columns(&self.columns.chosen());
        training.rereadable()
    }
}

fn open<'a>(data: &Dataset) -> Result<Box<dyn FeatureSource + 'a>> {
    Ok(Box::new(data.open()?))
}
