//! `dice paper`: the tables and figures of the DICE paper from a folder of features.

mod published;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use dice_ood::io::Dataset;
use dice_ood::{Error, ErrorKind, FeatureSource, Report, Result};

use crate::names::quoted;
use crate::page::{Beside, PaperNotes, claim_new, replaced_in};
use crate::said::Context;
use crate::sources::Source;
use crate::{Arguments, Command};
use published::{NETWORKS, Published, beside, key};

/// Make the tables and figures of the DICE paper from your features, with the published numbers beside yours.
///
/// For each network one folder with a page, its figures and tables: FPR95 and AUROC of MSP, energy, ReAct, DICE and both together
/// on every set, the ablations, the sweep over p, output variance, unit contributions and distributions of scores. It fits and
/// reports by `dice fit` and `dice report`, and prints these commands.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Paper {
    /// A network's folder, or one of such folders.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The folder to write to.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// The share of weights that DICE drops; by default the paper's: 0.7 for a head of ImageNet's size, else 0.9.
    #[arg(long, value_name = "P", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    p: Option<f64>,
}

const EXAMPLES: &str = "Examples:
  dice paper features/ -o out/
  dice paper features/cifar10 -o out/ --p 0.95

A network's folder holds (endings as for any features)
  head.*       weight [C, D] and bias [C] of the last layer
  id_train.*   penultimate features of the training images, with labels
  id_test.*    those of the test images, with labels
  id_val.*     those of further images of the same kind, if there are some: thresholds rest on them, and with thresholds the page
               shows what each detector accepts, how reliable p-values are and the inputs nearest to the threshold
  NAME.*       those of an out-of-distribution set, one file each: svhn, lsun-c, lsun-r, isun, textures, places365;
               inaturalist, sun, places, textures for ImageNet; or sets of your own
docs/PAPER.md has a PyTorch script that makes it. A head [10, 342], [100, 342] or [1000, 2048] is taken for the paper's own network
on CIFAR-10, CIFAR-100 or ImageNet, and the published numbers stand beside yours: marked as within the interval or outside it.";

/// What of the paper needs more than features.
const NEVER: &str = "ODIN and Generalized ODIN need gradients or training of the network, Mahalanobis as in the paper features of all its layers: not made";
const NO_THRESHOLDS: &str =
    "no id_val.*, on which thresholds could rest: no decisions, p-values and inputs near a threshold";
/// Endings of files that hold features.
const ENDINGS: [&str; 8] = ["safetensors", "npy", "npz", "csv", "parquet", "arrow", "feather", "ipc"];

/// Feature files, each under the name of its set.
type Sets = Vec<(String, PathBuf)>;

/// The files of a network.
#[derive(Debug, Default)]
struct Files {
    head: Option<PathBuf>,
    train: Option<PathBuf>,
    test: Option<PathBuf>,
    /// On which thresholds rest, where there are any.
    validation: Option<PathBuf>,
    others: Vec<PathBuf>,
}

impl Paper {
    /// What is known to be written before anything is read.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        let networks = self.networks().unwrap_or_default();
        let of = |(name, _): &(Option<String>, PathBuf)| {
            let out = self.out(name.as_deref());
            let folders = [out.join("figures"), out.join("tables")];
            let replaced: Vec<PathBuf> = folders.iter().flat_map(|folder| replaced_in(folder)).collect();
            [out.join("detector.safetensors"), out.join("report.html")].into_iter().chain(replaced)
        };
        networks.iter().flat_map(of).filter(|file| fs::symlink_metadata(file).is_ok()).collect()
    }

    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let networks = self.networks()?;
        let whole = |folder: &Path| {
            let files = Files::of(folder)?;
            Ok::<_, Error>(files.head.is_some() && files.train.is_some() && files.test.is_some())
        };
        let mut made = 0;
        for (name, folder) in &networks {
            match whole(folder)? {
                true => {
                    self.make(name.as_deref(), folder, context)?;
                    made += 1;
                }
                false => context
                    .note(format_args!("{}: no head.*, id_train.* and id_test.* together: left out", folder.display())),
            }
        }
        match made {
            0 => Err(Error::new(ErrorKind::Missing, "none")
                .file(self.folder.display())
                .expected("a folder with head.*, id_train.* and id_test.*, or one of such folders")
                .fix("see dice paper --help for the layout")),
            _ => Ok(()),
        }
    }

    /// The folder itself where it has a head, else those in it that have one; two levels down at most.
    fn networks(&self) -> Result<Vec<(Option<String>, PathBuf)>> {
        if Files::of(&self.folder)?.head.is_some() {
            return Ok(vec![(None, self.folder.clone())]);
        }
        let mut found = Vec::new();
        for folder in folders(&self.folder)? {
            let inner = if Files::of(&folder)?.head.is_some() { vec![folder] } else { folders(&folder)? };
            for folder in inner {
                let name =
                    folder.strip_prefix(&self.folder).unwrap_or(&folder).to_string_lossy().replace(['/', '\\'], "-");
                if Files::of(&folder)?.head.is_some() {
                    found.push((Some(name), folder));
                }
            }
        }
        Ok(found)
    }

    fn out(&self, name: Option<&str>) -> PathBuf {
        name.map_or_else(|| self.output.clone(), |name| self.output.join(name))
    }

    fn make(&self, name: Option<&str>, folder: &Path, context: &Context) -> Result<()> {
        let Files { head: Some(head), train: Some(train), test: Some(test), validation, others } = Files::of(folder)?
        else {
            return Ok(());
        };
        let units = units_of(&train)?;
        // Opened before anything is written: it may be a file that is to be.
        units_of(&test)?;
        validation.iter().try_for_each(|file| units_of(file).map(|_| ()))?;
        let classes = crate::data::head(&head.to_string_lossy(), units, &Context { quiet: true })?.0.classes();
        let network = NETWORKS.iter().find(|one| (one.classes, one.units) == (classes, units));
        let names = detectors(self.p.unwrap_or(network.map_or(0.9, |one| one.p)));
        let (sets, mut notes) = sets(others, units)?;
        notes.extend(network.and_then(|network| lacking(network, &sets)));
        notes.extend(validation.is_none().then(|| NO_THRESHOLDS.to_owned()));
        let out = self.out(name);
        fs::create_dir_all(&out).map_err(|error| Error::io(&out, error))?;
        let detector = out.join("detector.safetensors");
        let fit = fit_command([&train, &head], validation.as_deref(), &names, &detector);
        let report = report_command(&detector, &test, &sets, &names, &out);
        let fitting = told(&fit);
        context.note(&fitting);
        context.note(told(&report));
        if let Command::Fit(fit) = parsed(fit)? {
            claim_new(&detector)?;
            fit.run(context)?;
        }
        if let Command::Report(page) = parsed(report)? {
            claim_new(&out.join("report.html"))?;
            let compare = |report: &Report| {
                let fitted = (fitting.clone(), sources([&train, &head], validation.as_deref())?);
                Ok(PaperNotes { beside: compared(network, report, &names), notes: notes.clone(), fitted })
            };
            page.run_beside(Some(&compare), context)?;
        }
        notes.iter().for_each(|note| context.note(note));
        Ok(())
    }
}

/// Those of `files` that hold features `[N, units]`, by name, and what to say of the whole and of the others.
fn sets(files: Vec<PathBuf>, units: usize) -> Result<(Sets, Vec<String>)> {
    let (mut sets, mut notes) = (Vec::new(), vec![NEVER.to_owned()]);
    for file in files {
        match units_of(&file) {
            Ok(found) if found == units => sets.push((stem(&file), file)),
            Ok(found) => notes.push(format!("{}: {found} units where the head has {units}: left out", file.display())),
            // A file that is to be written, not one without features.
            Err(error) if error.kind() == ErrorKind::Argument => return Err(error),
            Err(_) => notes.push(format!("{}: no features [N, {units}] in it: left out", file.display())),
        }
    }
    Ok((sets, notes))
}

/// Which of the paper's sets are not among `sets`.
fn lacking(network: &Published, sets: &Sets) -> Option<String> {
    let is_here = |set: &str| sets.iter().any(|(name, _)| key(name) == set);
    let lacking: Vec<&str> = network.sets.iter().copied().filter(|set| !is_here(set)).collect();
    (!lacking.is_empty()).then(|| {
        format!("sets of the paper that are not here, so that its averages cannot be compared: {}", lacking.join(", "))
    })
}

/// What a fit reads.
fn sources([train, head]: [&Path; 2], validation: Option<&Path>) -> Result<Vec<Source>> {
    let read = [("training features", Some(train)), ("head", Some(head)), ("calibration", validation)];
    read.into_iter().filter_map(|(role, file)| Some(Source::of_file(role, file?))).collect()
}

/// The paper takes means over all training images, and has no thresholds: these rest on images beside them.
fn fit_command(
    [train, head]: [&Path; 2],
    validation: Option<&Path>,
    names: &[(String, &str)],
    detector: &Path,
) -> Vec<OsString> {
    let mut line = words(["fit", "--features"]);
    line.extend([train.into(), "--head".into(), head.into()]);
    match validation {
        Some(file) => line.extend(["--calibration".into(), file.into()]),
        None => line.extend(["--calibration-fraction".into(), "0".into()]),
    }
    line.extend(names.iter().flat_map(|(spec, _)| ["-d".into(), spec.into()]));
    line.extend(["-o".into(), detector.into()]);
    line
}

fn report_command(detector: &Path, test: &Path, sets: &Sets, names: &[(String, &str)], out: &Path) -> Vec<OsString> {
    let mut line = words(["report"]);
    line.extend([detector.into(), "--id".into(), test.into()]);
    for (name, file) in sets {
        let mut set = OsString::from(format!("{}=", name.replace(['=', ':'], "_")));
        set.push(file);
        line.extend(["--ood".into(), set]);
    }
    line.extend(names.iter().flat_map(|(spec, _)| ["-d".into(), spec.into()]));
    for (flag, file) in [("-o", "report.html"), ("--figures", "figures"), ("--tables", "tables")] {
        line.extend([flag.into(), out.join(file).into()]);
    }
    line
}

fn compared(network: Option<&Published>, report: &Report, names: &[(String, &str)]) -> Vec<Beside> {
    network.map(|network| beside(network, report, names)).unwrap_or_default()
}

/// The detectors of the paper's tables, and what they are called there.
fn detectors(p: f64) -> [(String, &'static str); 5] {
    [
        (format!("dice({p}) | energy"), "dice"),
        ("energy".into(), "energy"),
        ("msp".into(), "msp"),
        ("react(0.9) | energy".into(), "react"),
        (format!("react(0.9) | dice({p}) | energy"), "react+dice"),
    ]
}

/// A command line as one would type it.
fn told(line: &[OsString]) -> String {
    let words: Vec<String> = line.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    format!("dice {}", words.join(" "))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}

/// A command line without the program's name.
fn parsed(line: Vec<OsString>) -> Result<Command> {
    let arguments = Arguments::try_parse_from(std::iter::once("dice".into()).chain(line));
    arguments.map(|arguments| arguments.command).map_err(|error| Error::new(ErrorKind::Argument, error.to_string()))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn units_of(file: &Path) -> Result<usize> {
    Ok(Dataset::new([file.display().to_string()])?.open()?.units())
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = listed(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| Error::io(folder, error))).collect()
}

impl Files {
    fn of(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        let mut files = listed(folder)?;
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let ending = file.extension().unwrap_or_default().to_string_lossy().into_owned();
            let features = ENDINGS.contains(&&*ending);
            match &*stem(&file) {
                "head" if features || ["pt", "pth", "onnx"].contains(&&*ending) => found.head = Some(file),
                "id_train" if features => found.train = Some(file),
                "id_test" if features => found.test = Some(file),
                "id_val" if features => found.validation = Some(file),
                _ if features => found.others.push(file),
                _ => {}
            }
        }
        Ok(found)
    }
}
