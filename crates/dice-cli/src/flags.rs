//! How what the library asks for is given on the command line: its errors name no flags.

use std::path::PathBuf;

use clap::Command;
use dice_ood::{Error, ErrorKind, Missing, Remedy};

/// Adds the flags to an error of `command` that says what can be given or chosen, or what is missing.
pub(crate) fn with_flags(error: Error, command: Option<&Command>) -> Error {
    let has =
        |flag: &str| command.is_some_and(|command| command.get_arguments().any(|one| one.get_long() == Some(flag)));
    let missing = || advice(&error, &has).filter(|(flag, _)| has(flag)).map(|(_, text)| text);
    match error.remedy().and_then(flags).or_else(missing) {
        Some(flags) => error.and_fix(flags),
        None => error,
    }
}

/// The flag that gives what `error` lacks, and how it is said. Commands without that flag are not advised so.
fn advice(error: &Error, has: &dyn Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
    Some(match (error.kind(), error.missing()) {
        (ErrorKind::Columns, _) => (
            "drop-column",
            "--drop-column NAME drops columns; --features-column, --id-column and --label-column say which are which",
        ),
        (_, Some(Missing::Files)) => ("model", "for images, name the network they go through: --model MODEL.onnx"),
        (_, Some(Missing::Labels)) if has("id-labels") => {
            ("labels", "--labels FILE for --features, --id-labels FILE for --id")
        }
        (_, Some(Missing::Labels)) => ("labels", "--labels FILE"),
        (_, Some(Missing::Statistic(_))) => {
            ("statistics", "--features FILE, or --statistics of a detector that has it")
        }
        (_, Some(Missing::Reference)) => ("calibration", "--calibration FILE"),
        _ => return None,
    })
}

fn flags(remedy: Remedy) -> Option<&'static str> {
    Some(match remedy {
        Remedy::Preprocessing => "--preprocess NAME|FILE|SETTINGS",
        Remedy::Runtime => "--runtime onnxruntime=PATH",
        Remedy::Features => "give them with --features",
        Remedy::RuntimeOrFeatures => {
            "--runtime onnxruntime=PATH, with PATH to its library or to the folder of the Python package onnxruntime; or \
             --features"
        }
        Remedy::Arrays => "--inputs FILE.npz",
        Remedy::SkipBroken => "--broken skip",
        Remedy::AcceptNonFinite => "--non-finite ood",
        Remedy::FitToModel => "dice fit --model",
        _ => return None,
    })
}

/// A probability between 0 and 1, ends excluded.
pub(crate) fn rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate < 1.0 => Ok(rate),
        Ok(percent) if (10.0..100.0).contains(&percent) => {
            Err(format!("expected a rate above 0 and below 1: for {percent} percent write {}", percent / 100.0))
        }
        _ => Err("expected a rate above 0 and below 1, such as 0.95".into()),
    }
}

/// A file to write, of the only format there is for it.
pub(crate) fn ending(text: &str, extension: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|found| found == extension) {
        true => Ok(path),
        false => Err(format!("this is written as .{extension}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use dice_ood::Need;

    /// Every remedy names a flag or a command that there is.
    #[test]
    fn remedies_are_flags_of_some_command() {
        let command = crate::Arguments::command();
        let is_flag = |long: &str| {
            command.get_subcommands().flat_map(clap::Command::get_arguments).any(|one| one.get_long() == Some(long))
        };
        for remedy in [
            Remedy::Preprocessing,
            Remedy::Runtime,
            Remedy::Features,
            Remedy::RuntimeOrFeatures,
            Remedy::Arrays,
            Remedy::SkipBroken,
            Remedy::AcceptNonFinite,
            Remedy::FitToModel,
        ] {
            let error = Error::new(ErrorKind::Argument, "x").fix("do this").with_remedy(remedy);
            let text = with_flags(error, None).to_string();
            assert!(text.starts_with("x; do this ("), "{text}");
            let named: Vec<&str> = text
                .split("--")
                .skip(1)
                .map(|rest| rest.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap_or_default())
                .collect();
            assert!(!named.is_empty() && named.iter().all(|long| is_flag(long)), "{remedy:?}: {text}");
        }
        assert_eq!(with_flags(Error::new(ErrorKind::Argument, "x"), None).to_string(), "x");
    }

    /// What is missing is advised where the command takes it, by flags that the command has.
    #[test]
    fn only_commands_with_the_flag_are_advised() {
        let commands = crate::Arguments::command();
        let advised = |error: Error, command: &str| with_flags(error, commands.find_subcommand(command)).to_string();
        let files = || Error::lacking(Missing::Files, "no such file");
        let model = "no such file; for images, name the network they go through: --model MODEL.onnx";
        assert_eq!(advised(files(), "score"), model);
        assert_eq!(advised(files(), "methods"), "no such file");
        let labels = advised(Error::lacking(Missing::Labels, "x"), "tune");
        assert!(labels.contains("--id-labels FILE for --id"), "{labels}");
        let fit = commands.find_subcommand("fit").unwrap();
        for missing in [Missing::Files, Missing::Labels, Missing::Statistic(Need::Bank), Missing::Reference] {
            let text = advised(Error::lacking(missing, "x"), "fit");
            let flag = text.split("--").nth(1).and_then(|rest| rest.split(' ').next());
            assert!(flag.is_some() && fit.get_arguments().any(|one| one.get_long() == flag), "{missing:?}: {text}");
        }
    }
}
