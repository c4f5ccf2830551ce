//! What the commands do to files: inputs stay as they are, rights are kept, and the same work is the same bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Desk, colours, failed, stderr, succeeded};

/// A way to run a command: its arguments, of which `OUT` is what it writes; the ending of that file, or one of the files in that folder;
/// the files that it reads.
struct Run {
    arguments: &'static str,
    ending: &'static str,
    inputs: &'static [&'static str],
}

const fn run(arguments: &'static str, ending: &'static str, inputs: &'static [&'static str]) -> Run {
    Run { arguments, ending, inputs }
}

const RUNS: &[Run] = &[
    run(
        "features --model apart.onnx --images list.txt train/a-red --preprocess plain.json -o OUT",
        "safetensors",
        &["apart.onnx", "apart.data", "list.txt", "grey/03.bmp", "train/a-red/07.bmp", "plain.json"],
    ),
    run(
        "fit --features train.safetensors --labels y.npy --head head.safetensors --calibration calibration.safetensors -o OUT",
        "safetensors",
        &["train.safetensors", "y.npy", "head.safetensors", "calibration.safetensors"],
    ),
    run(
        "fit --features train.safetensors --head head.safetensors -o new.safetensors --save-statistics OUT",
        "safetensors",
        &["train.safetensors", "head.safetensors"],
    ),
    run(
        "fit --features kept.safetensors --head apart.onnx --calibration-fraction 0.25 -o OUT",
        "safetensors",
        &["kept.safetensors", "apart.onnx", "apart.data"],
    ),
    run(
        "fit --statistics d.safetensors --head head.safetensors -o OUT",
        "safetensors",
        &["d.safetensors", "head.safetensors"],
    ),
    run(
        "fit --model apart.onnx --images train --preprocess plain.json --calibration test -o OUT",
        "safetensors",
        &["apart.onnx", "apart.data", "train/b-green/00.bmp", "plain.json", "test/c-blue/19.bmp"],
    ),
    run(
        "fit --model apart.onnx --inputs pixels.npy --calibration-fraction 0.5 -d energy --keep features -o OUT",
        "safetensors",
        &["apart.onnx", "apart.data", "pixels.npy"],
    ),
    run("score d.safetensors new.npy folder -o OUT", "csv", &["d.safetensors", "new.npy", "folder/new.npy"]),
    run("score d.safetensors new.npy -o new.csv --summary OUT", "json", &["d.safetensors", "new.npy"]),
    run("score d.safetensors - -o OUT", "parquet", &["new.npy"]),
    run(
        "score network.safetensors --model apart.onnx grey -o OUT",
        "jsonl",
        &["network.safetensors", "apart.onnx", "apart.data", "grey/11.bmp"],
    ),
    run(
        "eval d.safetensors --id test.safetensors --id-labels test-y.npy --ood a=letters.safetensors --ood b=new.npy -o OUT",
        "md",
        &["d.safetensors", "test.safetensors", "test-y.npy", "letters.safetensors", "new.npy"],
    ),
    run(
        "eval network.safetensors --model apart.onnx --id test --ood grey=grey -o OUT",
        "json",
        &["network.safetensors", "apart.onnx", "apart.data", "test/a-red/00.bmp", "grey/00.bmp"],
    ),
    run("eval --scores --id id.csv#score --ood x=ood.csv -o OUT", "tex", &["id.csv", "ood.csv"]),
    run(
        "report d.safetensors --id test.safetensors --id-labels test-y.npy --ood a=letters.safetensors --bootstrap 5 -o OUT",
        "html",
        &["d.safetensors", "test.safetensors", "test-y.npy", "letters.safetensors"],
    ),
    run(
        "explain d.safetensors test.safetensors --row 3 --training train.safetensors -o OUT",
        "html",
        &["d.safetensors", "test.safetensors", "train.safetensors"],
    ),
    run(
        "explain network.safetensors --model apart.onnx grey --row 11 -o OUT",
        "json",
        &["network.safetensors", "apart.onnx", "apart.data", "grey/11.bmp"],
    ),
    run(
        "diagnose train.safetensors --head head.safetensors --ood far:a=letters.safetensors -o OUT",
        "json",
        &["train.safetensors", "head.safetensors", "letters.safetensors"],
    ),
    run(
        "sweep d.safetensors -d dice(P)|energy --grid P=0.5,0.9 --id test.safetensors --ood a=letters.safetensors -o OUT",
        "csv",
        &["d.safetensors", "test.safetensors", "letters.safetensors"],
    ),
    run(
        "tune --features train.safetensors --head head.safetensors --id test.safetensors --ood a=letters.safetensors -d energy -d msp -o OUT",
        "safetensors",
        &["train.safetensors", "head.safetensors", "test.safetensors", "letters.safetensors"],
    ),
    run(
        "export network.safetensors --model apart.onnx -o OUT",
        "onnx",
        &["network.safetensors", "apart.onnx", "apart.data"],
    ),
    run("export network.safetensors --model apart.onnx#fc -o OUT", "onnx", &["apart.onnx"]),
    // Without -d there is one detector, and an existing folder gets its file.
    run(
        "fit --features train.safetensors --head head.safetensors -d energy -o OUT/",
        "energy.safetensors",
        &["train.safetensors", "head.safetensors"],
    ),
    run(
        "report d.safetensors --id test.safetensors --ood a=letters.safetensors --bootstrap 0 -o page.html --figures OUT/",
        "scores-1.svg",
        &["d.safetensors", "test.safetensors", "letters.safetensors"],
    ),
    #[cfg(feature = "pictures")]
    run(
        "report d.safetensors --id test.safetensors --ood a=letters.safetensors --bootstrap 0 -o page.html --figures OUT/",
        "scores-1.pdf",
        &["d.safetensors", "test.safetensors", "letters.safetensors"],
    ),
    run(
        "report d.safetensors --id test.safetensors --ood a=letters.safetensors --bootstrap 0 -o page.html --tables OUT/",
        "methods.csv",
        &["d.safetensors", "test.safetensors", "letters.safetensors"],
    ),
    run(
        "paper net -o OUT/",
        "report.html",
        &["net/head.safetensors", "net/id_train.safetensors", "net/id_test.safetensors", "net/letters.safetensors"],
    ),
];
/// Commands that write nothing, or a new folder.
const WITHOUT_OUTPUT: [&str; 7] = ["inspect", "plot", "methods", "demo", "completions", "man", "help"];

/// A desk on which every one of [`RUNS`] can run.
fn desk() -> Desk {
    let desk = colours();
    let vector = |name: &str, rows: usize| {
        let data: Vec<u8> = (0..rows).flat_map(|row| (row as i64 % 10).to_le_bytes()).collect();
        fs::write(desk.path(name), npy::npy("<i8", false, &format!("{rows},"), &data)).unwrap();
    };
    vector("y.npy", 1100);
    vector("test-y.npy", 349);
    let rows: Vec<u8> = (0..256 * 30).flat_map(|place| ((place % 97) as f32 / 97.0).to_le_bytes()).collect();
    fs::write(desk.path("new.npy"), npy::npy("<f4", false, "30, 256", &rows)).unwrap();
    let pixels: Vec<u8> = (0..64 * 192).flat_map(|place| ((place % 89) as f32 / 89.0).to_le_bytes()).collect();
    fs::write(desk.path("pixels.npy"), npy::npy("<f4", false, "64, 3, 8, 8", &pixels)).unwrap();
    fs::create_dir(desk.path("net")).unwrap();
    for (file, name) in [("head", "head"), ("train", "id_train"), ("test", "id_test"), ("letters", "letters")] {
        let place = |name: &str| desk.path(&format!("{name}.safetensors"));
        fs::copy(place(file), place(&format!("net/{name}"))).unwrap();
    }
    fs::create_dir(desk.path("folder")).unwrap();
    fs::copy(desk.path("new.npy"), desk.path("folder/new.npy")).unwrap();
    fs::write(desk.path("list.txt"), "grey/02.bmp\ngrey/03.bmp\n").unwrap();
    for line in [
        "fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -d energy -o d.safetensors",
        "fit --model apart.onnx --images train --preprocess plain.json --calibration-fraction 0.25 -d energy -o network.safetensors",
        "features --model apart.onnx --images train --preprocess plain.json -o kept.safetensors",
        "score d.safetensors test.safetensors -o id.csv",
        "score d.safetensors letters.safetensors -o ood.csv",
    ] {
        succeeded(&desk.line(line));
    }
    desk
}

/// Every file below `folder` and its bytes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.append(&mut snapshot(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

/// Runs the command with `output`; `-` among its inputs is the file `new.npy`.
fn refused(desk: &Desk, arguments: &str, output: &str) -> String {
    let before = snapshot(desk.folder.path());
    let arguments = arguments.replace("OUT", output);
    let stdin = fs::File::open(desk.path("new.npy")).unwrap();
    let ran = desk.command().args(arguments.split(' ')).stdin(stdin).output().unwrap();
    assert!(matches!(ran.status.code(), Some(1 | 2)), "{arguments}: {:?} {}", ran.status, stderr(&ran));
    let after = snapshot(desk.folder.path());
    assert!(before.keys().eq(after.keys()), "{arguments}: {:?}", after.keys());
    let changed: Vec<_> = before.iter().filter(|(path, bytes)| after[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{arguments} changed {changed:?}");
    stderr(&ran)
}

#[test]
fn no_command_writes_over_what_it_reads() {
    let desk = desk();
    for Run { arguments, ending, inputs } in RUNS {
        let line = arguments.replace("OUT/", "OUT").replace("OUT", &format!("fresh.{ending}"));
        let stdin = fs::File::open(desk.path("new.npy")).unwrap();
        succeeded(&desk.command().args(line.split(' ')).stdin(stdin).output().unwrap());
        for input in *inputs {
            if !arguments.ends_with('/') {
                // Where the ending does not fit the command, that is the reason.
                refused(&desk, arguments, input);
            }
            for link in [
                |input: &Path, link: &Path| symlink(input, link),
                |input: &Path, link: &Path| fs::hard_link(input, link),
            ] {
                let output = match arguments.ends_with('/') {
                    true => format!("links/{ending}"),
                    false => format!("links/link.{ending}"),
                };
                fs::create_dir(desk.path("links")).unwrap();
                link(&desk.path(input), &desk.path(&output)).unwrap();
                let given = if arguments.ends_with('/') { "links" } else { &output };
                let message = refused(&desk, &arguments.replace("OUT/", "OUT"), given);
                assert!(message.contains("an input of this very command"), "{arguments} on {input}: {message}");
                assert!(message.contains(output.as_str()), "{arguments} on {input}: {message}");
                fs::remove_dir_all(desk.path("links")).unwrap();
            }
        }
    }
}

/// A command that the table above leaves out fails here.
#[test]
fn the_table_has_every_command() {
    let help = succeeded(&Desk::new().line("--help"));
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let mut count = 0;
    for line in commands.take_while(|line| !line.is_empty()) {
        let Some(command) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else { continue };
        let command = command.split(' ').next().unwrap();
        let run = RUNS.iter().any(|run| run.arguments.starts_with(&format!("{command} ")));
        assert!(run != WITHOUT_OUTPUT.contains(&command), "{command}");
        count += 1;
    }
    assert_eq!(count, WITHOUT_OUTPUT.len() + 11);
}

#[test]
fn outputs_of_one_command_are_different_files() {
    let desk = desk();
    fs::write(desk.path("old.safetensors"), "old").unwrap();
    symlink("old.safetensors", desk.path("soft.safetensors")).unwrap();
    fs::hard_link(desk.path("old.safetensors"), desk.path("hard.safetensors")).unwrap();
    fs::create_dir(desk.path("out")).unwrap();
    let fit = "fit --features train.safetensors --head head.safetensors -d energy --save-statistics OUT -o";
    for (output, statistics) in [
        ("x.safetensors", "x.safetensors"),
        ("x.safetensors", "./out/../x.safetensors"),
        ("old.safetensors", "soft.safetensors"),
        ("hard.safetensors", "old.safetensors"),
        ("out", "out/energy.safetensors"),
    ] {
        let message = refused(&desk, &format!("{fit} {output}"), statistics);
        assert!(message.contains("another output of this very command"), "{message}");
    }
    // Devices hold nothing that could be lost.
    succeeded(
        &desk.line("fit --features train.safetensors --head head.safetensors -o /dev/null --save-statistics /dev/null"),
    );
}

#[test]
fn standard_streams_count() {
    let desk = desk();
    let appended = fs::File::options().append(true).open(desk.path("id.csv")).unwrap();
    let before = fs::read(desk.path("id.csv")).unwrap();
    let output = desk
        .command()
        .args(["eval", "--scores", "--id", "id.csv", "--ood", "x=ood.csv"])
        .stdout(appended)
        .output()
        .unwrap();
    assert!(failed(&output, 1).contains("standard output"));
    assert_eq!(fs::read(desk.path("id.csv")).unwrap(), before);
}

#[test]
fn rights_are_kept() {
    let desk = desk();
    let mode = |name: &str| fs::metadata(desk.path(name)).unwrap().mode() & 0o777;
    let set = |name: &str, mode: u32| fs::set_permissions(desk.path(name), fs::Permissions::from_mode(mode)).unwrap();
    let runs = RUNS.iter().filter(|run| run.inputs != ["new.npy"] && !run.arguments.ends_with('/'));
    for Run { arguments, ending, .. } in runs {
        let name = format!("private.{ending}");
        let line = arguments.replace("OUT", &name);
        for rights in [0o600, 0o640, 0o666] {
            fs::write(desk.path(&name), "old").unwrap();
            set(&name, rights);
            succeeded(&desk.line(&line));
            assert_eq!(mode(&name), rights, "{line}");
        }
        fs::write(desk.path(&name), "old").unwrap();
        set(&name, 0o444);
        let message = failed(&desk.line(&line), 1);
        assert!(message.contains(&name) && message.to_lowercase().contains("permission denied"), "{line}: {message}");
        assert_eq!(fs::read(desk.path(&name)).unwrap(), b"old");
        assert!(!desk.listing().iter().any(|name| name.starts_with(".dice")), "{:?}", desk.listing());
        fs::remove_file(desk.path(&name)).unwrap();
        // A new file has the rights of any new file.
        for (umask, rights) in [("077", 0o600), ("022", 0o644)] {
            let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
            let script = format!("umask {umask}; exec \"$DICE\" {}", words.join(" "));
            let mut shell = Command::new("sh");
            let shell = shell.current_dir(desk.folder.path()).env("DICE", env!("CARGO_BIN_EXE_dice"));
            succeeded(&shell.args(["-c", &script]).stdin(Stdio::null()).output().unwrap());
            assert_eq!(mode(&name), rights, "{line}");
            fs::remove_file(desk.path(&name)).unwrap();
        }
    }
    // Only the superuser can give a file to someone else.
    if fs::metadata(desk.folder.path()).unwrap().uid() == 0 {
        fs::write(desk.path("theirs.csv"), "old").unwrap();
        std::os::unix::fs::chown(desk.path("theirs.csv"), Some(12), Some(34)).unwrap();
        succeeded(&desk.line("score d.safetensors new.npy -o theirs.csv"));
        let theirs = fs::metadata(desk.path("theirs.csv")).unwrap();
        assert_eq!((theirs.uid(), theirs.gid()), (12, 34));
    }
}

/// All that the commands write, twice and with other numbers of threads.
#[test]
fn the_same_work_is_the_same_bytes() {
    let desk = desk();
    let runs = RUNS.iter().filter(|run| run.inputs != ["new.npy"] && !run.arguments.ends_with('/'));
    for Run { arguments, ending, .. } in runs {
        let name = format!("out.{ending}");
        let line = arguments.replace("OUT", &name);
        let mut first = None;
        for threads in ["1", "1", "2", "5"] {
            let output = desk
                .command()
                .args(line.split(' '))
                .args(["--threads", threads])
                .env_remove("SOURCE_DATE_EPOCH")
                .output();
            succeeded(&output.unwrap());
            let bytes = fs::read(desk.path(&name)).unwrap();
            assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes, "{line} --threads {threads}");
        }
    }
    let dated = |date: &str| {
        let line = "fit --features train.safetensors --head head.safetensors -d energy -o dated.safetensors";
        desk.command().args(line.split(' ')).env("SOURCE_DATE_EPOCH", date).output().unwrap()
    };
    succeeded(&dated("951782400"));
    assert!(succeeded(&desk.line("inspect dated.safetensors")).contains("fitted: 2000-02-29T00:00:00Z"));
    for wrong in ["yesterday", "-1", "1e9", "999999999999999"] {
        assert!(failed(&dated(wrong), 1).contains("SOURCE_DATE_EPOCH"), "{wrong}");
    }
}

#[test]
fn a_detector_in_the_wrong_place_is_found() {
    let desk = desk();
    for line in [
        "score new.npy d.safetensors",
        "score grey network.safetensors --model colours.onnx",
        "eval test.safetensors --id d.safetensors --ood x=letters.safetensors",
        "eval test.safetensors --id letters.safetensors --ood x=d.safetensors",
        "export colours.onnx --model network.safetensors -o x.onnx",
    ] {
        let message = failed(&desk.line(line), 1);
        assert!(message.contains("the detector comes first"), "{line}: {message}");
    }
}
