//! How what the library asks for is given on the command line: its errors name no flags.

use dice_ood::{Error, Remedy};

/// Adds the flags to an error that says what can be given or chosen.
pub(crate) fn with_flags(error: Error) -> Error {
    match error.remedy().and_then(flags) {
        Some(flags) => error.and_fix(flags),
        None => error,
    }
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
        Remedy::SkipBroken => "--broken skip",
        Remedy::AcceptNonFinite => "--non-finite ood",
        Remedy::FitToModel => "dice fit --model",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use dice_ood::ErrorKind;

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
            Remedy::SkipBroken,
            Remedy::AcceptNonFinite,
            Remedy::FitToModel,
        ] {
            let error = Error::new(ErrorKind::Argument, "x").fix("do this").with_remedy(remedy);
            let text = with_flags(error).to_string();
            assert!(text.starts_with("x; do this ("), "{text}");
            let named: Vec<&str> = text
                .split("--")
                .skip(1)
                .map(|rest| rest.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap_or_default())
                .collect();
            assert!(!named.is_empty() && named.iter().all(|long| is_flag(long)), "{remedy:?}: {text}");
        }
        assert_eq!(with_flags(Error::new(ErrorKind::Argument, "x")).to_string(), "x");
    }
}
