//! What ends a run from outside leaves no partial file behind.

use std::io;

use dice_ood::io::files::remove_temporaries;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// From now on the first signal that asks the process to end removes temporary files and folders, and exits with 128 plus its
/// number, as shells report it. A file larger than the process may write is an error of writing.
pub(crate) fn watch() -> io::Result<()> {
    // A handler in place of the default action, which ends the process; nobody asks whether it ran.
    signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default())?;
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)))?;
    let end = move || {
        if let Some(signal) = signals.forever().next() {
            remove_temporaries();
            // At once: what other threads use must not be torn down under them.
            signal_hook::low_level::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(end).map(drop)
}

/// Whether the parent wants the signal ignored: `nohup` does, and shells do for what they run in the background. Where the system does
/// not say, hanging up is left as it was.
fn is_ignored(signal: i32) -> bool {
    let status = dice_ood::io::files::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    match mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) => mask >> (signal - 1) & 1 == 1,
        None => signal == SIGHUP,
    }
}
