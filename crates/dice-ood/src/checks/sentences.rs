//! What each [`Finding`](super::Finding) says: a plain sentence with its figures, and what to check.

use std::fmt::{self, Formatter};

const LAYER: &str = "Check that the features are the inputs of this very layer of this very network, with \
                     their units in order, and that the head is its last linear layer.";

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

pub(super) fn head_does_not_fit(f: &mut Formatter<'_>, variation: f64, shuffled: f64) -> fmt::Result {
    write!(
        f,
        "The head reads these features no better than with its units shuffled: logits vary by {variation:.3} between \
         inputs, and by up to {shuffled:.3} with units in random order. {LAYER}"
    )
}

pub(super) fn large_margins(f: &mut Formatter<'_>, margin: f64) -> fmt::Result {
    write!(
        f,
        "The largest logit leads the second by {margin:.0} in the median, which is more than trained networks reach. \
         Check that the features are scaled as in training (multiplied by 255?)."
    )
}

pub(super) fn flat_predictions(f: &mut Formatter<'_>, margin: f64, confidence: f64, chance: f64) -> fmt::Result {
    write!(
        f,
        "The predictions hardly depend on the input: the largest logit leads the second by {margin:.3} in the median, and \
         the mean probability of the predicted class is {confidence:.3}, where guessing gives {chance:.3}. Check that the \
         features are scaled as in training, and that they are neither probabilities nor normalised rows."
    )
}

pub(super) fn few_classes_predicted(
    f: &mut Formatter<'_>,
    predicted: f64,
    classes: usize,
    most_frequent: f64,
) -> fmt::Result {
    write!(
        f,
        "Predictions collapse to few of the {classes} classes: they are as varied as {predicted:.1} equally frequent ones, and \
         {} of the inputs are predicted as one class. {LAYER}",
        percent(most_frequent)
    )
}

pub(super) fn probabilities(f: &mut Formatter<'_>, share: f64) -> fmt::Result {
    write!(
        f,
        "{} of the rows sum to one and hold nothing negative: these look like probabilities, not like penultimate features. \
         Check that they are the inputs of the head, and not the outputs of a softmax.",
        percent(share)
    )
}

pub(super) fn log_probabilities(f: &mut Formatter<'_>, share: f64) -> fmt::Result {
    write!(
        f,
        "The exponentials of {} of the rows sum to one: these look like log-probabilities, not like penultimate features. \
         Check that they are the inputs of the head, and not the outputs of a log-softmax.",
        percent(share)
    )
}

pub(super) fn logits(f: &mut Formatter<'_>, agreement: f64) -> fmt::Result {
    write!(
        f,
        "There are as many units as classes, and the largest unit is the label for {} of the inputs: these look like \
         logits. Check that they are the inputs of the head, and not its outputs.",
        percent(agreement)
    )
}

pub(super) fn whole_numbers(f: &mut Formatter<'_>, low: f64, high: f64) -> fmt::Result {
    write!(
        f,
        "All features are whole numbers, from {low} to {high}: these look like quantised values, counts or pixels. Check \
         that they are the inputs of the head, scaled as in training."
    )
}

pub(super) fn constant_units(f: &mut Formatter<'_>, constant: usize, units: usize) -> fmt::Result {
    write!(
        f,
        "{constant} of {units} units have one value for all inputs. Check that the features are not padded, and not those \
         of one input repeated."
    )
}

pub(super) fn labels_out_of_range(
    f: &mut Formatter<'_>,
    rows: u64,
    lowest: i64,
    highest: i64,
    classes: usize,
) -> fmt::Result {
    write!(
        f,
        "{rows} labels name no class: labels run from {lowest} to {highest}, classes from 0 to {}. Check that labels are \
         counted from 0, and that they are those of this head.",
        classes - 1
    )
}

pub(super) fn labels_shifted(f: &mut Formatter<'_>, add: i64, accuracy: f64, shifted: f64) -> fmt::Result {
    write!(
        f,
        "The labels are shifted by one: the accuracy of the head is {} with the labels as they are, and {} with {add:+} \
         added to each.",
        percent(accuracy),
        percent(shifted)
    )
}

pub(super) fn labels_in_another_order(f: &mut Formatter<'_>, accuracy: f64, reordered: f64) -> fmt::Result {
    write!(
        f,
        "The labels count the classes in another order than the head: the accuracy is {} with the labels as they are, and \
         {} if each class stood for the label most frequent in it. Check which class each label stands for.",
        percent(accuracy),
        percent(reordered)
    )
}

pub(super) fn accuracy_near_chance(f: &mut Formatter<'_>, accuracy: f64, chance: f64, confidence: f64) -> fmt::Result {
    write!(
        f,
        "The accuracy of the head on these features is {}, near the {} of chance, while its mean confidence is {}. Check \
         that labels and features are in the same order (one of them shuffled?), and that the features are the inputs of \
         this very layer.",
        percent(accuracy),
        percent(chance),
        percent(confidence)
    )
}

pub(super) fn calibration_overlaps_training(f: &mut Formatter<'_>, share: f64, rows: u64) -> fmt::Result {
    write!(
        f,
        "{} of the {rows} calibration rows are rows that the detector was fitted to: it is surer of them than of new \
         inputs, and fewer of these are accepted than promised. Calibrate on inputs that are in neither set.",
        percent(share)
    )
}

pub(super) fn calibration_repeats(f: &mut Formatter<'_>, distinct: u64, rows: u64) -> fmt::Result {
    write!(
        f,
        "Only {distinct} of the {rows} calibration rows are different: the promise rests on as many inputs, and the \
         intervals of the realised rate are too narrow. Calibrate on each input once."
    )
}

pub(super) fn calibration_unlike_training(
    f: &mut Formatter<'_>,
    distance: f64,
    spread: f64,
    separation: f64,
) -> fmt::Result {
    write!(
        f,
        "The calibration inputs are not like the training inputs: the means of their features are {distance:.2} standard \
         deviations apart, their variance is {spread:.2} times that of the training features, and a training row has the \
         higher energy in {} of the pairs, where 50 % means alike. The promise holds for inputs like the calibration inputs \
         only: check that they are in-distribution.",
        percent(separation)
    )
}
