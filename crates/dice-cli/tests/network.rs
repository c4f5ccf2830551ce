//! Images through networks, with the real binary: fit, score, evaluate, export.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::Path;

use common::{Desk, colours, failed, stderr, succeeded};

const FIT: &str = "fit --model colours.onnx --images train --preprocess plain.json --calibration-fraction 0.25 -d energy -d msp -o d.safetensors";

#[test]
fn one_command_from_a_model_and_images_to_a_detector() {
    let desk = colours();
    let output = desk.line(FIT);
    succeeded(&output);
    let said = stderr(&output);
    assert!(said.contains("3 classes, 3 features from penultimate") && said.contains("Fitted to 90 inputs"), "{said}");
    let about = succeeded(&desk.line("inspect d.safetensors"));
    for part in ["model_sha256", "features_tensor: penultimate", "preprocess", "images: train"] {
        assert!(about.contains(part), "{part}: {about}");
    }
    let scored = succeeded(&desk.line("score d.safetensors --model colours.onnx test/a-red grey"));
    assert!(scored.contains("grey/00.bmp") && scored.lines().count() == 41, "{scored}");
    assert!(scored.lines().filter(|line| line.starts_with("grey")).all(|line| line.contains(",ood,")), "{scored}");
    let table = succeeded(
        &desk.line("eval d.safetensors --model colours.onnx --id test --ood grey=grey --format csv --all-metrics"),
    );
    assert!(table.contains("grey"), "{table}");
    // Features that were kept give the same, and know where they came from.
    succeeded(
        &desk.line("features --model colours.onnx --images test/a-red grey --preprocess plain.json -o f.safetensors"),
    );
    assert_eq!(succeeded(&desk.line("score d.safetensors f.safetensors")), scored);
    succeeded(&desk.line(
        "fit --features f.safetensors --head colours.onnx --calibration-fraction 0.5 -d energy -o kept.safetensors",
    ));
    succeeded(&desk.line("score kept.safetensors --model colours.onnx grey"));
    assert!(!desk.listing().iter().any(|name| name.starts_with('.')), "{:?}", desk.listing());
}

#[test]
fn an_export_says_what_was_measured() {
    let desk = colours();
    succeeded(&desk.line(FIT));
    let export = |more: &str| {
        let output = desk.line(&format!("export d.safetensors{more}"));
        assert_eq!(succeeded(&output), "");
        stderr(&output)
    };
    let same = "Measured by the built-in runtime on 8 random inputs: the network's own outputs are the same, bit for bit; ood_score ";
    for model in ["colours.onnx", "apart.onnx"] {
        succeeded(&desk.line(&FIT.replace("colours.onnx", model)));
        let said = export(&format!(" --model {model} -o out/with.onnx").replace("out/", ""));
        assert!(said.contains(same) && said.contains("is_ood decides the same"), "{said}");
    }
    let said = export(" -o alone.onnx --measure 3");
    assert!(said.contains("Measured by the built-in runtime on 3 random inputs: ood_score "), "{said}");
    assert!(!said.contains("own outputs"), "{said}");
    assert!(!export(" -o alone.onnx --measure 0").contains("easured"));
    assert_eq!(export(" -o alone.onnx --quiet"), "");
    // A runtime that is not there is no reason to write nothing.
    let said = export(" -o other.onnx --runtime onnxruntime=absent.so");
    assert!(said.contains("Could not be measured by the onnxruntime runtime, because: absent.so"), "{said}");
    assert!(desk.path("other.onnx").exists());
    // Every operator of the demo's panel in one model.
    succeeded(&desk.line("fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -o panel.safetensors"));
    let output = desk.line("export panel.safetensors -o panel.onnx");
    succeeded(&output);
    assert!(stderr(&output).contains("on 8 random inputs: ood_score ") && stderr(&output).contains("decides the same"));
}

#[test]
fn a_fit_shows_what_detectors_reject_of_distorted_images() {
    let desk = colours();
    let fit = FIT.replace("-d energy -d msp ", "");
    let output = desk.line(&format!("{fit} --stand-ins 40 --format json"));
    let told: serde_json::Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let table = &told["stand_ins"];
    assert_eq!(table["images"], 40);
    let (detectors, kinds) = (table["detectors"].as_array().unwrap(), table["stand_ins"].as_array().unwrap());
    assert_eq!((detectors.len(), kinds.len()), (told["detectors"].as_array().unwrap().len(), 8));
    let rejected = |name: &str| -> Vec<f64> {
        let kind = kinds.iter().find(|kind| kind["name"] == name).unwrap();
        kind["rejected"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect()
    };
    // The network sees the mean colour alone: upside down nothing changes, and the mean of two colours is another one.
    let flipped = rejected("flip");
    assert!(flipped.iter().all(|share| *share < 0.2), "{flipped:?}");
    let said = stderr(&output);
    assert!(said.contains("Rejected of 40 images, each distorted") && said.contains("jigsaw"), "{said}");
    for less in ["--stand-ins 0", "--quiet"] {
        let output = desk.line(&format!("{fit} {less}"));
        assert!(!stderr(&output).contains("distorted"), "{}", stderr(&output));
    }
    let message = failed(
        &desk.line("fit --features train.safetensors --head head.safetensors --stand-ins 5 -o x.safetensors"),
        1,
    );
    assert!(message.contains("--model"), "{message}");
}

#[test]
fn tune_and_sweep_take_images_and_tune_distorts_them() {
    let desk = colours();
    let tune = |line: &str| {
        let output = desk.line(&format!("tune --bootstrap 50 --format json -d msp -d max-logit {line}"));
        serde_json::from_str::<serde_json::Value>(&succeeded(&output)).unwrap()
    };
    let images = "--model colours.onnx --images train --preprocess plain.json --tpr 0.8";
    let told = tune(&format!("{images} --id test --stand-ins 60"));
    assert_eq!(told["validation"], "distorted in-distribution images");
    let kinds = told["parts"]["sets"].as_array().unwrap().len() + told["dropped"].as_array().unwrap().len();
    assert_eq!(kinds, 8, "{told}");
    let told = tune(&format!("{images} --ood grey=grey -o chosen.safetensors"));
    assert_eq!(told["validation"], "real out-of-distribution inputs");
    succeeded(&desk.line("score chosen.safetensors --model colours.onnx grey"));
    // The network of a detector file.
    succeeded(&desk.line(FIT));
    let told = tune("d.safetensors --model colours.onnx --id test --ood grey=grey --tpr 0.8");
    assert_eq!(told["validation"], "real out-of-distribution inputs");
    // The mean colour of an image is that of the image upside down, up to rounding; that of two classes mixed is of neither.
    let told = tune("d.safetensors --model colours.onnx --id test --tpr 0.8");
    let counted = told["parts"]["sets"].as_array().unwrap();
    assert!(counted.iter().any(|set| set[0] == "mix"), "{told}");
    let one = desk.line("tune d.safetensors --model colours.onnx --id test --stand-ins 1 --tpr 0.8 -d msp");
    assert!(failed(&one, 1).contains("'flip'") && stderr(&one).contains("1 row"), "{}", stderr(&one));
    // Copies of one image, and what a distortion makes of them.
    fs::create_dir(desk.path("copies")).unwrap();
    (0..20).for_each(|copy| {
        fs::copy(desk.path("grey/03.bmp"), desk.path("copies").join(format!("{copy}.bmp"))).unwrap();
    });
    succeeded(&desk.line(
        "features --model colours.onnx --images copies --preprocess plain.json --distort flip -o flipped.safetensors",
    ));
    for (model, copies) in [("--model colours.onnx", "copies"), ("", "flipped.safetensors")] {
        let inputs = if model.is_empty() { "id.safetensors" } else { "test" };
        succeeded(&desk.line("features --model colours.onnx --images test --preprocess plain.json -o id.safetensors"));
        let line = format!("tune d.safetensors {model} --id {inputs} --standin blur={copies} --tpr 0.8 -d msp");
        let message = failed(&desk.line(&line.replace("  ", " ")), 1);
        assert!(message.contains("'blur'") && message.contains("20 rows that are all the same"), "{message}");
    }
    let swept = succeeded(&desk.run(&[
        "sweep",
        "d.safetensors",
        "--model",
        "colours.onnx",
        "--id",
        "test",
        "--ood",
        "grey=grey",
        "-d",
        "energy(temperature=T)",
        "--grid",
        "T=1,2",
        "--format",
        "csv",
    ]));
    assert_eq!(swept.lines().count(), 3, "{swept}");
    let message = failed(&desk.line("tune d.safetensors --model apart.onnx --id test -d msp"), 1);
    assert!(message.contains("apart.onnx"), "{message}");
}

#[test]
fn labels_of_class_folders_give_accuracy_only_where_they_are_the_classes() {
    let desk = colours();
    succeeded(&desk.line(FIT));
    let json = |id: &str| {
        let arguments =
            format!("eval d.safetensors --model colours.onnx --id {id} --ood grey=grey --format json --bootstrap 0");
        let output = desk.line(&arguments);
        (succeeded(&output), stderr(&output))
    };
    assert!(json("test").0.contains("\"dense_accuracy\": 1.0"), "{}", json("test").0);
    fs::rename(desk.path("test/c-blue"), desk.path("blue")).unwrap();
    let (report, said) = json("test");
    assert!(report.contains("\"dense_accuracy\": null") && said.contains("2 class folders for 3 classes"), "{said}");
}

#[test]
fn another_model_or_preprocessing_is_refused() {
    let desk = colours();
    succeeded(&desk.line(FIT));
    // The same network to any runtime, but not the same file.
    let mut other = fs::read(desk.path("colours.onnx")).unwrap();
    other.extend([0x22, 0x01, b'x']);
    fs::write(desk.path("other.onnx"), other).unwrap();
    for arguments in [
        "score d.safetensors --model other.onnx grey",
        "eval d.safetensors --model other.onnx --id test --ood grey=grey",
        "export d.safetensors --model other.onnx -o x.onnx",
    ] {
        let message = failed(&desk.line(arguments), 1);
        assert!(message.contains("other.onnx") && message.contains("another model"), "{message}");
    }
    succeeded(&desk.line("features --model other.onnx --images grey --preprocess plain.json -o other.safetensors"));
    let message = failed(&desk.line("score d.safetensors other.safetensors"), 1);
    assert!(message.contains("other.safetensors") && message.contains("sha256"), "{message}");
    fs::write(desk.path("half.json"), r#"{"do_resize": false, "do_normalize": false, "rescale_factor": 0.5}"#).unwrap();
    succeeded(&desk.line("features --model colours.onnx --images grey --preprocess half.json -o half.safetensors"));
    let message = failed(&desk.line("score d.safetensors half.safetensors"), 1);
    assert!(message.contains("preprocessing"), "{message}");
    let message = failed(&desk.line("fit --features half.safetensors --head other.onnx -o y.safetensors"), 1);
    assert!(message.contains("other.onnx"), "{message}");
    // Features of unknown origin make a detector that no model can be checked against.
    succeeded(&desk.line("fit --features train.safetensors --head head.safetensors -d energy -o unknown.safetensors"));
    let message = failed(&desk.line("score unknown.safetensors --model colours.onnx grey"), 1);
    assert!(message.contains("unknown origin") && message.contains("dice fit --model"), "{message}");
    let message = failed(&desk.line("export unknown.safetensors --model colours.onnx -o x.onnx"), 1);
    assert!(message.contains("head"), "{message}");
    assert!(!desk.path("x.onnx").exists() && !desk.path("y.safetensors").exists());
}

#[test]
fn broken_images_are_named_and_counted() {
    let desk = colours();
    fs::write(desk.path("train/a-red/07.bmp"), "no image").unwrap();
    let message = failed(&desk.line(FIT), 1);
    assert!(message.contains("07.bmp"), "{message}");
    assert!(!desk.path("d.safetensors").exists());
    let output = desk.line(&format!("{FIT} --broken skip"));
    succeeded(&output);
    assert!(stderr(&output).contains("Left out 1 image ") && stderr(&output).contains("07.bmp"), "{}", stderr(&output));
    fs::write(desk.path("grey/03.bmp"), "").unwrap();
    let scored = succeeded(&desk.line("score d.safetensors --model colours.onnx grey --broken skip"));
    assert!(scored.lines().count() == 20 && !scored.contains("03.bmp"), "{scored}");
}

#[test]
fn images_without_a_network_and_paths_without_images_say_what_to_do() {
    let desk = colours();
    succeeded(&desk.line(FIT));
    let message = failed(&desk.line("score d.safetensors grey"), 1);
    assert!(message.contains("--model"), "{message}");
    let message = failed(&desk.line("score d.safetensors --model colours.onnx nowhere"), 1);
    assert!(message.contains("nowhere") && message.contains("no such file or folder"), "{message}");
    fs::create_dir(desk.path("empty")).unwrap();
    let message = failed(&desk.line("eval d.safetensors --model colours.onnx --id test --ood x=empty"), 1);
    assert!(message.contains("empty") && message.contains("no image"), "{message}");
    let message = failed(&desk.line("export d.safetensors --model colours.onnx -o nowhere/x.onnx"), 1);
    assert!(message.contains("nowhere/x.onnx") && message.contains("no such directory"), "{message}");
}

#[test]
fn a_runtime_that_is_not_there_is_an_error_with_a_way_out() {
    let desk = colours();
    fs::write(desk.path("lib.so"), "no library").unwrap();
    for path in ["nowhere.so", "lib.so", "train"] {
        let message = failed(&desk.line(&format!("{FIT} --runtime onnxruntime={path}")), 1);
        assert!(message.contains(path) && message.contains("libonnxruntime.so"), "{message}");
    }
    let message = failed(&desk.line(&format!("{FIT} --runtime tensorflow")), 2);
    assert!(message.contains("built-in or onnxruntime=PATH"), "{message}");
    assert!(!desk.path("d.safetensors").exists());
}

/// The library says what is missing, the command line adds how it is given.
#[test]
fn what_is_missing_comes_with_its_flag() {
    let desk = colours();
    fs::write(desk.path("train/a-red/07.bmp"), "no image").unwrap();
    let features = "features --model colours.onnx -o f.safetensors --images";
    for (arguments, flag) in [
        (format!("{features} train --preprocess plain.json"), "(--broken skip)"),
        (
            format!("{features} grey --preprocess plain.json --runtime onnxruntime=nowhere"),
            "(--runtime onnxruntime=PATH)",
        ),
        (format!("{features} grey --preprocess channels=grey"), "(--preprocess NAME|FILE|SETTINGS)"),
    ] {
        let message = failed(&desk.line(&arguments), 1);
        assert!(message.trim_end().ends_with(flag), "{arguments}: {message}");
    }
}

#[test]
fn the_exported_model_says_what_it_is() {
    let desk = colours();
    succeeded(&desk.line(FIT));
    let output = desk.line("export d.safetensors --model colours.onnx --features -o ood.onnx");
    succeeded(&output);
    let said = stderr(&output);
    for part in ["ood_score [N], p_value [N], is_ood [N], features [N, 3] by energy", "95.00 %", "size kept"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let about = succeeded(&desk.line("inspect ood.onnx"));
    for part in
        ["`ood_score` float32", "`p_value` float32", "`is_ood` bool", "`dice_ood.detector` energy", "Gemm at `fc`"]
    {
        assert!(about.contains(part), "{part}: {about}");
    }
    let message = failed(&desk.line("export d.safetensors --model colours.onnx -o colours.onnx"), 1);
    assert!(message.contains("input of this very command"), "{message}");
    failed(&desk.line("export d.safetensors --model colours.onnx -o ood.bin"), 2);
    failed(&desk.line("export d.safetensors --model colours.onnx -d max-logit -o x.onnx"), 1);
}

#[test]
fn a_detector_alone_takes_features_and_says_what_it_is() {
    let desk = colours();
    succeeded(&desk.line(&format!("{FIT} -d knn(1)")));
    let output = desk.line("export d.safetensors -o head.onnx");
    succeeded(&output);
    let said = stderr(&output);
    let parts = [
        "from features [N, 3] to ood_score [N], p_value [N], is_ood [N], prediction [N] by energy",
        "95.00 %",
        "colours.onnx",
        "size kept",
    ];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    let about = succeeded(&desk.line("inspect head.onnx"));
    let parts = [
        "`features` float32 [N, 3]",
        "`ood_score` float32 [N]",
        "`prediction` int64 [N]",
        "`dice_ood.detector` energy",
        "`dice_ood.threshold`",
        "Detector  alone",
    ];
    assert!(parts.iter().all(|part| about.contains(part)) && !about.contains("No head"), "{about}");
    succeeded(&desk.line("export d.safetensors -d knn(1) -o knn.onnx"));
    let message = failed(&desk.line("export d.safetensors -d knn(1) --max-size 0 -o small.onnx"), 1);
    assert!(message.contains("'knn(1)'") && message.contains("--max-size 1"), "{message}");
    failed(&desk.line("export d.safetensors --features -o x.onnx"), 2);
    assert!(!desk.path("small.onnx").exists() && !desk.path("x.onnx").exists());
}

/// A model and images of `../shared/data`, where they are at hand.
fn shared(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path.display().to_string())
}

#[test]
fn images_through_an_onnx_model_make_a_detector() {
    let (Some(model), Some(images)) = (shared("onnx/tribuo_pytorch_cnn_mnist.onnx"), shared("images/mnist")) else {
        return;
    };
    let desk = Desk::new();
    let about = succeeded(&desk.run(&["inspect", &model]));
    assert!(about.contains("10 classes, 50 features"), "{about}");
    succeeded(&desk.run(&[
        "features",
        "--model",
        &model,
        "--images",
        &images,
        "--preprocess",
        "mnist",
        "-o",
        "f.safetensors",
    ]));
    let held = succeeded(&desk.run(&["inspect", "f.safetensors"]));
    assert!(held.contains("500 rows of 50 units"), "{held}");
    succeeded(&desk.run(&[
        "fit",
        "--features",
        "f.safetensors",
        "--head",
        &model,
        "-d",
        "energy",
        "-o",
        "m.safetensors",
    ]));
    // The head that lies beside the features is the model's own.
    succeeded(&desk.run(&[
        "fit",
        "--features",
        "f.safetensors",
        "--head",
        "f.safetensors",
        "-d",
        "energy",
        "-o",
        "n.safetensors",
    ]));
    let scores = |detector: &str| succeeded(&desk.run(&["score", detector, "f.safetensors"]));
    assert_eq!(scores("m.safetensors"), scores("n.safetensors"));
}

#[test]
fn features_name_what_is_wrong() {
    let desk = Desk::new();
    fs::write(desk.folder.path().join("page.onnx"), "<!DOCTYPE html><html></html>").unwrap();
    let output = desk.run(&["features", "--model", "page.onnx", "--images", ".", "-o", "f.safetensors"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("page.onnx") && message.contains("web page"), "{message}");
    let output = desk.run(&["features", "--model", "page.onnx", "--images", ".", "-o", "f.npy"]);
    assert_eq!(output.status.code(), Some(2), "features are written as .safetensors");
}
