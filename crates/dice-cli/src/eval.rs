//! `dice eval`: how well detectors tell data sets apart, by every convention, and what their thresholds do.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use dice_ood::diagnosis::{Anatomy, Kind, Watch};
use dice_ood::evaluation::{EvaluationOptions, Ranking, RankingMetric, SetLabel, TestSet, evaluate, evaluate_scores};
use dice_ood::explanation::{Explanation, Lookout, Notable, UnitShare};
use dice_ood::io::{AtomicFile, SCORE_NAMES, expand, read_vector};
use dice_ood::{Artifact, Calibrated, Error, ErrorKind, FeatureSource, Fitting, Report, Result, Spec};

use serde::Serialize;

use crate::advice::{Given, Step, paragraph, steps};
use crate::columns::Columns;
use crate::data::{Inputs, check_origin, dataset, detector, network, without_foreign_labels};
use crate::layout::{is_unicode, width_of};
use crate::network::Running;
use crate::progress::Bar;
use crate::ranking::ranking_parser;
use crate::report::{Format, Table, add_scores, contradiction, json, tables, warn_of_overlaps};
use crate::said::{Context, print};
use crate::score::{OnNonFinite, Orientation, at_tpr};
use crate::wanted::{Named, Wanted, named};

/// Evaluate detectors on in-distribution and out-of-distribution test sets.
///
/// Prints FPR@95TPR (share of OOD accepted when 95 % of ID is; ID positive, as in the DICE paper), AUROC, AUPR, bootstrap
/// intervals, ID accuracy where labels are there, and what each detector's own threshold accepts. Rates are in percent.
/// Without --ood it says what the detectors do on the in-distribution set alone: coverage, accuracy, where scores lie.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Eval {
    #[command(flatten)]
    pub(crate) comparison: Comparison,
    /// How to print; by default as the extension of --output says (.md .tex .csv .json), else a table.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Print every metric and convention, not only the usual ones.
    #[arg(long)]
    pub(crate) all_metrics: bool,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Detectors, and the sets that they are compared on.
#[derive(clap::Args)]
pub(crate) struct Comparison {
    /// The detector file, as written by `dice fit`.
    #[arg(value_name = "DETECTOR", required_unless_present = "scores")]
    pub(crate) artifact: Option<PathBuf>,
    /// In-distribution test features [N, D]; with --model images or arrays, as the fit had; scores [N] with --scores.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) id: Vec<String>,
    /// Labels of the in-distribution test set, where they are in a file of their own.
    #[arg(long, value_name = "FILE")]
    pub(crate) id_labels: Option<String>,
    /// An out-of-distribution test set; repeat for several. near:NAME=FILE and far:NAME=FILE say how far it is from the
    /// in-distribution data: near sets, far sets and all then have averages of their own.
    #[arg(long, value_name = "[near:|far:]NAME=FILE", value_parser = parse_set)]
    pub(crate) ood: Vec<(SetLabel, String)>,
    /// The network that the detector was fitted to: FILEs are then images (folders, patterns, .txt lists, .tar shards,
    /// .parquet), prepared as for the fit, or arrays where it was fitted to --inputs; class folders, as many as the network has classes and numbered by name, are labels.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with_all = ["scores", "id_labels"])]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) running: Running,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Detectors to compare: of the file, or fitted from its head and statistics (these have no threshold). `all` are all of the
    /// file, which is the default.
    #[arg(long = "detector", short = 'd', value_name = "SPEC|all")]
    pub(crate) detectors: Vec<Wanted>,
    /// Put the best detector first: by the average of this metric over all sets, or over those that are near or far.
    #[arg(long, value_name = "METRIC", value_parser = ranking_parser(), requires = "ood")]
    pub(crate) sort: Option<Ranking>,
    /// FILEs hold scores of any tool, not features; no DETECTOR then.
    #[arg(long, conflicts_with_all = ["artifact", "detectors", "id_labels"])]
    pub(crate) scores: bool,
    /// The sign of scores given with --scores.
    #[arg(long, default_value = "in-distribution", requires = "scores")]
    pub(crate) orientation: Orientation,
    /// The TPR at which FPR is taken.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    pub(crate) at_tpr: f64,
    /// Promise another TPR than the fit did: thresholds are taken anew from the calibration scores in the file.
    #[arg(long, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true, conflicts_with = "scores")]
    pub(crate) tpr: Option<f64>,
    /// Exit with 1, after the report is written, where the in-distribution set contradicts what a threshold promises.
    #[arg(long, conflicts_with = "scores")]
    pub(crate) check: bool,
    /// Bootstrap replicates for the intervals; 0 for none.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) bootstrap: u32,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// What to do with inputs that hold NaN or infinity.
    #[arg(long, default_value = "reject")]
    pub(crate) non_finite: OnNonFinite,
}

const EXAMPLES: &str = "Examples:
  dice eval detector.safetensors --id test.safetensors --ood svhn=svhn.npy --ood textures=dtd.npy
  dice eval detector.safetensors --id test.npy --ood svhn=svhn.npy \\
      -d energy -d msp -d 'dice(0.9) | energy' -o table.tex
  dice eval detector.safetensors --model resnet.onnx --id val/ --ood textures=dtd/images/
  dice eval all.safetensors --id test.npy --ood near:cifar100=c100.npy --ood far:svhn=svhn.npy --sort near-auroc
  dice eval detector.safetensors --id this-week.npy --check
  dice eval --scores --id id_scores.npy --ood svhn=svhn_scores.csv#score

--sort fpr95 is FPR at the TPR of --at-tpr; near and far alone are near-auroc and far-auroc. Averages weigh sets, not inputs.

Conventions of the names in --all-metrics, csv and json:
  fpr_at_tpr               OOD accepted when 95 % of ID is (ID positive: DICE, ReAct, ASH papers)
  fpr_at_tpr_ood_positive  ID rejected when 95 % of OOD is (OOD positive: OpenOOD v1.5)
  aupr_in, aupr_out        average precision; aupr_*_trapezoid is OpenOOD's area
  official_*               what the DICE authors' util/metrics.py prints
  ccr_at_fpr_1, _10        correctly classified ID above the threshold of 1 %, 10 % FPR
  average_*, near_*, far_*  of a detector over all sets, and over those tagged near: and far:
  check                    whether the ID set is like the calibration inputs (see dice score --help)
The last paragraph says which detector is best by the metric of --sort (FPR by default), and whether its difference to energy and to
the next best is more than noise: the same inputs are drawn for all detectors, of sets of more than 4,096 inputs from 4,096 of them.
--quiet drops it, JSON carries it as advice. Intervals are 95 % bootstrap percentiles; sides of more than 65,536 inputs are resampled on a grid
that moves their ends by less than 0.05 percentage points of FPR and 0.01 of AUROC.";

pub(crate) fn parse_set(text: &str) -> std::result::Result<(SetLabel, String), String> {
    let Some((label, file)) = text.split_once('=') else { return Err(A_SET.into()) };
    let label = SetLabel::tagged(label);
    if label.name.is_empty() || file.is_empty() { Err(A_SET.into()) } else { Ok((label, file.into())) }
}

const A_SET: &str = "expected NAME=FILE, as in svhn=svhn.npy, or near:NAME=FILE or far:NAME=FILE";

impl Eval {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let told = match self.format() {
            Format::Json => true,
            Format::Table | Format::Markdown => !context.quiet,
            Format::Latex | Format::Csv => false,
        };
        let bars = self.format() == Format::Table && !self.all_metrics && self.width().is_some() && is_unicode();
        let told = Told { advice: told, bars, figures: None };
        let Compared { report, steps, .. } = self.comparison.compared(told, context)?;
        let text = self.render(&report, &steps)?;
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                let plain = anstream::adapter::strip_str(&text).to_string();
                file.write_all(plain.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()?;
            }
            _ => print(&text)?,
        }
        self.comparison.conclude(&report, context)
    }

    pub(crate) fn evaluate(&self, context: &Context) -> Result<Report> {
        Ok(self.comparison.compared(Told { advice: !context.quiet, bars: false, figures: None }, context)?.report)
    }

    fn width(&self) -> Option<usize> {
        width_of(self.output.as_deref())
    }

    fn format(&self) -> Format {
        let extension = self.output.as_ref().and_then(|path| path.extension()).and_then(|extension| extension.to_str());
        self.format.unwrap_or(match extension {
            Some("md") => Format::Markdown,
            Some("tex") => Format::Latex,
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            _ => Format::Table,
        })
    }

    fn render(&self, report: &Report, steps: &[Step]) -> Result<String> {
        match self.format() {
            Format::Json => json(&Advised { report, advice_commands: steps }),
            // One table of everything is what programs read.
            Format::Csv => Ok(tables(report, true)[0].render(Format::Csv)),
            format => {
                let mut tables = tables(report, self.all_metrics);
                if report.detectors.iter().any(|one| one.drawn.is_some() && !one.sets.is_empty()) {
                    add_scores(&mut tables[0], report);
                }
                let written = |table: &Table| match format {
                    Format::Table => table.fitted(self.width()),
                    format => table.render(format),
                };
                let mut parts: Vec<String> = tables.iter().map(written).collect();
                parts.extend(report.advice.as_ref().map(|advice| paragraph(advice, steps, self.comparison.at_tpr)));
                Ok(parts.join("\n"))
            }
        }
    }
}

/// What a comparison tells beside its metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Which detector to take.
    pub(crate) advice: bool,
    /// Where scores lie, as bars beside the metrics.
    pub(crate) bars: bool,
    /// What figures are drawn from.
    pub(crate) figures: Option<Figures>,
}

/// What figures are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Those of the paper's ablations too.
    pub(crate) ablations: bool,
}

/// What a comparison found.
pub(crate) struct Compared {
    pub(crate) report: Report,
    /// What its advice names as commands.
    pub(crate) steps: Vec<Step>,
    /// What pruning does, where figures are wanted and a detector prunes; or why that cannot be told.
    pub(crate) anatomy: Option<std::result::Result<Anatomy, String>>,
    /// Inputs that are worth a look, by the first detector of the report, where figures are wanted and it has a threshold.
    pub(crate) looks: Vec<Look>,
    pub(crate) read: Read,
}

/// What a comparison of features read.
#[derive(Default)]
pub(crate) struct Read {
    /// The files of the in-distribution set.
    pub(crate) id: Vec<PathBuf>,
    /// Those of each other set.
    pub(crate) ood: Vec<Vec<PathBuf>>,
    /// SHA-256 of the network, with data beside its file where there is some.
    pub(crate) network: Option<String>,
}

/// An input that is worth a look.
#[derive(Serialize)]
pub(crate) struct Look {
    #[serde(flatten)]
    pub(crate) input: Notable,
    /// What its units do to its score, where that is told.
    pub(crate) units: Vec<UnitShare>,
}

impl Comparison {
    /// Says where a promise is contradicted: by an error where asked to check, else by a warning, which is printed also where
    /// notes are not.
    pub(crate) fn conclude(&self, report: &Report, context: &Context) -> Result<()> {
        warn_of_overlaps(report, context);
        let broken = report.detectors.iter().filter(|detector| detector.breaks_its_promise());
        let accounts: Vec<String> = broken
            .filter_map(|detector| {
                let decision = detector.decision.as_ref()?;
                let account = contradiction(&decision.check, decision.promised_tpr, decision.id_accepted);
                Some(format!("by {}: {account}", detector.detector))
            })
            .collect();
        if accounts.is_empty() {
            return Ok(());
        }
        let text = format!(
            "the in-distribution inputs are not like the calibration inputs.\n{}\nWas the calibration a part of the training \
             data? Then fit with --calibration on inputs that the network has not seen.",
            accounts.join("\n")
        );
        match self.check {
            true => Err(Error::new(ErrorKind::Calibration, text)),
            false => {
                context.warn(text);
                Ok(())
            }
        }
    }

    pub(crate) fn compared(&self, told: Told, context: &Context) -> Result<Compared> {
        self.check_ranking()?;
        match &self.artifact {
            Some(path) => self.of_features(path, told, context),
            None => {
                let mut report = self.of_scores(told, context)?;
                self.rank(&mut report, told)?;
                Ok(Compared { report, steps: Vec::new(), anatomy: None, looks: Vec::new(), read: Read::default() })
            }
        }
    }

    /// Refuses a ranking over sets that there are none of, before anything is read.
    fn check_ranking(&self) -> Result<()> {
        let Some(over) = self.sort.and_then(|by| by.over) else { return Ok(()) };
        if self.ood.iter().any(|(label, _)| label.distance == Some(over)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Argument, "none")
            .argument("--sort")
            .expected(format!("a set that is {0}, as in --ood {0}:NAME=FILE", over.name())))
    }

    /// Puts detectors in order: as asked for; of a page, the best of them first.
    fn rank(&self, report: &mut Report, told: Told) -> Result<()> {
        let best = told.figures.is_some() && !self.ood.is_empty();
        let by = self.sort.or(best.then_some(Ranking { over: None, metric: RankingMetric::FprAtTpr }));
        by.map_or(Ok(()), |by| report.sort(by))
    }

    fn options(&self, told: Told) -> EvaluationOptions {
        let ranking = self.sort.unwrap_or(Ranking { over: None, metric: RankingMetric::FprAtTpr });
        EvaluationOptions {
            advise: told.advice.then_some(ranking),
            at_tpr: self.at_tpr,
            bootstrap: self.bootstrap,
            seed: self.seed,
            non_finite: self.non_finite.into(),
            draw: told.bars || told.figures.is_some(),
        }
    }

    fn of_scores(&self, told: Told, context: &Context) -> Result<Report> {
        let read = |files: &[String]| -> Result<Vec<f64>> {
            let mut scores = Vec::new();
            for file in expand(files)? {
                scores.extend(read_vector(&file, &SCORE_NAMES)?);
            }
            Ok(scores.into_iter().map(|score| self.orientation.apply(score)).collect())
        };
        let id = read(&self.id)?;
        let sets = self.ood.iter().map(|(label, file)| Ok((label.clone(), read(std::slice::from_ref(file))?)));
        evaluate_scores("scores", &id, &sets.collect::<Result<Vec<_>>>()?, &self.options(told), &mut Bar::new(context))
    }

    fn of_features(&self, path: &Path, told: Told, context: &Context) -> Result<Compared> {
        let others = self.id.iter().chain(self.ood.iter().map(|(_, file)| file)).chain(&self.model);
        let artifact = detector(path, others.map(String::as_str))?;
        let compared = self.detectors_of(&artifact).map_err(|error| error.file(path.display()))?;
        let network = network(self.model.as_ref(), &artifact, path, &self.running, context)?;
        // All are found before the first is read: a wrong name is told at once.
        let id = match (&network, &self.id_labels) {
            (None, labels) => Inputs::Features(dataset(&self.id, labels.as_ref())?),
            (Some(_), _) => Inputs::find(network.as_ref(), &self.id)?,
        };
        let id = without_foreign_labels(id, artifact.head().classes(), context);
        let id = id.named_if(told.figures.is_some()).fitted_to(&artifact, path, &self.columns)?;
        let ood = self.ood.iter().map(|(label, file)| {
            let inputs = Inputs::find(network.as_ref(), std::slice::from_ref(file))?.without_labels();
            Ok((label, inputs.named_if(told.figures.is_some()).fitted_to(&artifact, path, &self.columns)?))
        });
        let ood: Vec<(&SetLabel, Inputs<'_>)> = ood.collect::<Result<_>>()?;
        for inputs in ood.iter().map(|(_, inputs)| inputs).chain([&id]) {
            check_origin(inputs, &artifact, path)?;
        }
        let read = Read {
            id: id.files(),
            ood: ood.iter().map(|(_, inputs)| inputs.files()).collect(),
            network: network.as_ref().map(|network| network.origin().fingerprint.clone()),
        };
        let watching = told.figures.and_then(|figures| watch(&artifact, &compared, figures));
        let watch = watching.as_ref();
        let lookout = told.figures.map(|_| Lookout::new(&compared));
        let seen = lookout.as_ref();
        let sets = ood.iter().map(|(label, inputs)| {
            let open = move || Ok(watched((watch, seen), label, Kind::OutOfDistribution, inputs.open(context)?));
            TestSet::new((*label).clone(), open)
        });
        let sets = sets.collect();
        let label = SetLabel::from(IN_DISTRIBUTION);
        let open_id = || Ok(watched((watch, seen), &label, Kind::InDistribution, id.open(context)?));
        let id = TestSet::new(id.name(), open_id);
        let mut report = evaluate(&compared, id, sets, &self.options(told), &mut Bar::new(context))?;
        let given = Given {
            detector: path,
            provenance: artifact.provenance(),
            id: &self.id,
            ood: self.ood.iter().map(|(label, file)| (label.name.as_str(), file.as_str())).collect(),
            model: self.model.as_ref(),
        };
        let steps = report.advice.as_ref().map(|advice| steps(advice, &given)).unwrap_or_default();
        let anatomy = watching.map(|watch| watch.and_then(Watch::finish).map_err(|error| error.to_string()));
        self.rank(&mut report, told)?;
        let looks = lookout.map_or(Ok(Vec::new()), |lookout| looks(&artifact, &compared, &report, lookout))?;
        Ok(Compared { report, steps, anatomy, looks, read })
    }

    /// The detectors asked for: calibrated ones of the file, or fitted now from what it carries.
    fn detectors_of(&self, artifact: &Artifact) -> Result<Vec<Calibrated>> {
        let held = |spec: &Spec| artifact.detectors().iter().find(|held| held.detector().spec() == spec);
        let fitting = Fitting::new(artifact.head(), artifact.statistics())?;
        let Named { specs, all, auto } = named(&self.detectors)?;
        if auto.is_some() {
            return Err(Error::new(ErrorKind::Argument, "'auto'")
                .argument("--detector")
                .expected("a detector: `auto` is chosen by a fit, and stands in its file as what was chosen"));
        }
        let found = specs.iter().map(|spec| match held(spec) {
            Some(held) => Ok(held.clone()),
            None => Ok(Calibrated::scores_only(spec.prepare(&fitting)?.finish(&[])?)),
        });
        let mut compared: Vec<Calibrated> = found.collect::<Result<_>>()?;
        if all || specs.is_empty() {
            let others = artifact.detectors().iter().filter(|held| !specs.contains(&held.detector().spec()));
            compared.extend(others.cloned());
        }
        let promised = |calibrated: Calibrated| match self.tpr {
            Some(tpr) if calibrated.calibration().is_some() => at_tpr(calibrated, tpr),
            _ => Ok(calibrated),
        };
        let compared = compared.into_iter().map(promised).collect::<Result<Vec<_>>>()?;
        let decide = compared.iter().any(|calibrated| calibrated.threshold().is_some());
        if (self.check || self.tpr.is_some()) && !decide {
            return Err(Error::new(ErrorKind::Calibration, "detectors without calibration")
                .expected(if self.check { "a promise, for --check" } else { "calibration scores, for --tpr" })
                .fix("fit with --calibration"));
        }
        Ok(compared)
    }
}

/// A watch on the first detector that prunes the head, one whose score is the energy if there is such.
fn watch<'a>(artifact: &'a Artifact, compared: &[Calibrated], figures: Figures) -> Option<Result<Watch<'a>>> {
    let specs = || compared.iter().map(|one| one.detector().spec());
    let prunes = |spec: &&&Spec| spec.as_pipeline().is_some_and(|spec| spec.stem.sparsity.is_some());
    let by_energy = |spec: &&&Spec| spec.as_pipeline().is_some_and(|spec| spec.score.card().name == "energy");
    let spec = specs().filter(|spec| prunes(&spec)).find(|spec| by_energy(&spec));
    let spec = spec.or_else(|| specs().find(|spec| prunes(&spec)))?;
    Some(Watch::new(artifact.head(), artifact.statistics(), spec, figures.ablations))
}

/// What `source` gives, seen by the watch where there is one.
fn watched<'a>(
    (watch, lookout): (Option<&'a Result<Watch<'a>>>, Option<&'a Lookout>),
    label: &SetLabel,
    kind: Kind,
    source: Box<dyn FeatureSource + 'a>,
) -> Box<dyn FeatureSource + 'a> {
    let source = match watch {
        Some(Ok(watch)) => watch.over(label, kind, source),
        Some(Err(_)) | None => source,
    };
    match lookout {
        Some(lookout) => lookout.over(&label.name, kind, source),
        None => source,
    }
}

/// What figures call the in-distribution set.
const IN_DISTRIBUTION: &str = "in-distribution";
/// Units of an input are told by as many scores, which take long where each looks through a bank: of so many units at most there.
const MOST_UNITS: usize = 512;

/// What the best detector found notable, and what units did there.
fn looks(artifact: &Artifact, compared: &[Calibrated], report: &Report, lookout: Lookout) -> Result<Vec<Look>> {
    let first = |one: &Calibrated| {
        report.detectors.first().is_some_and(|best| one.detector().spec().to_string() == best.detector)
    };
    let Some((detector, notable)) = compared.iter().zip(lookout.finish()).find(|(one, _)| first(one)) else {
        return Ok(Vec::new());
    };
    let told = detector.detector().spec().takes_head() || artifact.head().units() <= MOST_UNITS;
    let look = |input: Notable| {
        let units = match told {
            true => Explanation::of(detector, artifact.statistics(), &input.features)?.units,
            false => Vec::new(),
        };
        Ok(Look { input, units })
    };
    notable.into_iter().map(look).collect()
}

/// A report, and what its advice names as commands.
#[derive(Serialize)]
struct Advised<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    advice_commands: &'a [Step],
}
