//! Choices and diagnoses, as the JSON that the commands print.

use dice_ood::diagnosis::{Diagnose, Kind, Sample};
use dice_ood::evaluation::SetLabel;
use dice_ood::tune::{Hopeful, Loss, Memo, Open, Options, Training, Validation, tune as choose};
use dice_ood::{Error, ErrorKind, HoldOut, Result, Spec};
use numpy::PyArray1;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::data::{Features, Labels, View};
use crate::fitted::Fitted;
use crate::head::Head;
use crate::running::{Stop, interruptible};

/// How a choice is made.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    /// Candidates; every method with its defaults where there are none.
    specs: Vec<String>,
    /// `sets`, `stand-ins`, `classes` or `noise`.
    validation: String,
    classes: usize,
    auroc: bool,
    at_tpr: f64,
    tpr: f64,
    replicates: u32,
    seed: u64,
    provenance: BTreeMap<String, String>,
}

/// Features, their labels, and the file of these.
type Labelled<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyArray1<i64>>>, Option<String>);

/// Sets by name.
type Sets<'py> = Vec<(String, Bound<'py, PyAny>)>;

struct Data<'py> {
    features: Features<'py>,
    labels: Labels<'py>,
}

impl<'py> Data<'py> {
    fn of((features, labels, file): &Labelled<'py>) -> PyResult<Self> {
        let features = Features::of(features)?.with_labels_of(file.as_deref())?;
        Ok(Self { features, labels: Labels::of(labels.as_ref()) })
    }
}

fn named<'py>(sets: &Sets<'py>) -> PyResult<Vec<(SetLabel, Features<'py>)>> {
    sets.iter().map(|(name, set)| Ok((SetLabel::tagged(name), Features::of(set)?.without_labels()))).collect()
}

fn opening<'a>(view: View<'a>, labels: Option<&'a [i64]>, stop: &Stop) -> Open<'a> {
    let stop = stop.clone();
    Box::new(move || view.open(labels, &stop))
}

impl Asked {
    fn candidates(&self) -> Result<Vec<Hopeful>> {
        if self.specs.is_empty() {
            return Ok(Spec::all().into_iter().map(|spec| Hopeful { spec, required: false }).collect());
        }
        self.specs.iter().map(|spec| Ok(Hopeful { spec: spec.parse()?, required: true })).collect()
    }

    fn options(&self) -> Options {
        Options {
            loss: if self.auroc { Loss::Auroc } else { Loss::Fpr },
            at_tpr: self.at_tpr,
            tpr: self.tpr,
            replicates: self.replicates,
            seed: self.seed,
            ..Options::default()
        }
    }

    fn validation<'a>(&self, sets: Vec<(String, Open<'a>)>) -> Result<Validation<'a>> {
        match &*self.validation {
            "sets" => Ok(Validation::Sets(sets)),
            "stand-ins" => Ok(Validation::StandIns(sets)),
            "classes" => Ok(Validation::Classes(self.classes)),
            "noise" => Ok(Validation::Noise),
            other => Err(Error::new(ErrorKind::Argument, format!("'{other}'"))
                .argument("validation")
                .expected("'sets', 'stand-ins', 'classes' or 'noise'")),
        }
    }
}

/// Chooses a detector: the chosen one, and the account of the choice as JSON.
#[pyfunction]
#[pyo3(signature = (asked, head, training, id, sets))]
pub(crate) fn tune<'py>(
    py: Python<'py>,
    asked: Asked,
    head: &Head,
    training: Labelled<'py>,
    id: Option<Labelled<'py>>,
    sets: Sets<'py>,
) -> PyResult<(Fitted, String)> {
    let (training, id, sets) = (Data::of(&training)?, id.as_ref().map(Data::of).transpose()?, named(&sets)?);
    let (fit_on, fit_labels) = (training.features.view(), training.labels.slice()?);
    let id = match &id {
        Some(id) => Some((id.features.view(), id.labels.slice()?)),
        None => None,
    };
    let sets: Vec<_> = sets.iter().map(|(label, features)| (label.name.clone(), features.view())).collect();
    let head = &head.0;
    interruptible(py, |stop| {
        let part = HoldOut::new(0.3, asked.seed)?;
        let (again, held) = (opening(fit_on, fit_labels, stop), opening(fit_on, fit_labels, stop));
        let (training, id): (Open<'_>, Open<'_>) = match id {
            Some((view, labels)) => (again, opening(view, labels, stop)),
            None => (Box::new(move || Ok(part.remaining(again()?))), Box::new(move || Ok(part.held_out(held()?)))),
        };
        let sets = sets.into_iter().map(|(name, view)| (name, opening(view, None, stop))).collect();
        let (candidates, validation) = (asked.candidates()?, asked.validation(sets)?);
        let (training, mut memo) = (Training::Features(training), Memo::nowhere());
        let tuned = choose(head, training, id, validation, &candidates, &asked.options(), &mut memo, &mut ())?;
        let outcome = json(&tuned.outcome)?;
        Ok((Fitted::new(tuned.artifact(asked.provenance.clone())?), outcome))
    })
}

/// What pruning does inside the network, as JSON.
#[pyfunction]
#[pyo3(signature = (spec, head, training, id, sets, stand_ins))]
pub(crate) fn diagnose<'py>(
    py: Python<'py>,
    spec: &str,
    head: &Head,
    training: Labelled<'py>,
    id: Option<Labelled<'py>>,
    sets: Sets<'py>,
    stand_ins: Sets<'py>,
) -> PyResult<String> {
    let (training, id) = (Data::of(&training)?, id.as_ref().map(Data::of).transpose()?);
    let (fit_on, fit_labels) = (training.features.view(), training.labels.slice()?);
    let id = match &id {
        Some(id) => Some((id.features.view(), id.labels.slice()?)),
        None => None,
    };
    let (sets, stand_ins) = (named(&sets)?, named(&stand_ins)?);
    let of_kind = |sets: &'_ [(SetLabel, Features<'py>)], kind: Kind| -> Vec<_> {
        sets.iter().map(|(label, _)| (label.clone(), kind)).collect()
    };
    let kinds = [of_kind(&sets, Kind::OutOfDistribution), of_kind(&stand_ins, Kind::StandIn)].concat();
    let views: Vec<View<'_>> = sets.iter().chain(&stand_ins).map(|(_, features)| features.view()).collect();
    let head = Arc::clone(&head.0);
    interruptible(py, |stop| {
        let open = move || fit_on.open(fit_labels, stop);
        let mut diagnosing = Diagnose::new(head, spec.parse()?)?;
        if let Some((view, labels)) = id {
            diagnosing = diagnosing.in_distribution("id", move || view.open(labels, stop));
        }
        for ((label, kind), view) in kinds.into_iter().zip(views) {
            let sample = Sample::new(label.name, kind, label.distance, move || view.open(None, stop));
            diagnosing = diagnosing.sample(sample);
        }
        json(&diagnosing.run(&open)?)
    })
}

fn json(found: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(found).map_err(|error| Error::caused_by(ErrorKind::Malformed, error))
}
