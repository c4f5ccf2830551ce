"""Which networks run in the built-in runtime: architectures of timm, torchvision and transformers, exported by PyTorch, beside ONNX Runtime.

    python -m venv .venv && .venv/bin/pip install -r bench/operators.txt
    .venv/bin/python bench/operators.py [--only TEXT ...] [--exporter dynamo torchscript] [--dice BINARY] [--threads 2]

One small variant of each family, of random weights: nothing is downloaded. Constant weights (gains of one, layer scales of 1e-6) and
statistics of normalisations are drawn too, so that no branch is silent. Each is exported by either exporter of PyTorch in a process of its
own, with a batch of any size, or of two where the exporter cannot; `dice features` runs it up to its features by the built-in runtime and by
ONNX Runtime. With `--light`, the graphs of the first ONNX model zoo that the package onnx carries. Prints Markdown: what failed, the largest
difference relative to the largest feature, and a summary.
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import pathlib
import re
import subprocess
import tempfile

# One of each module of timm.models that makes classifiers.
TIMM = """
beit_base_patch16_224 botnet26t_256 eca_resnext26ts bat_resnext26ts lambda_resnet26t gernet_s mobileone_s0 repvgg_a0 cait_xxs24_224 coat_tiny
coat_lite_tiny convit_tiny convmixer_768_32 convnext_atto convnext_atto_rms convnextv2_atto cpubone_b0_bfrobust crossvit_tiny_240 csatv2 cspresnet50 cspnext_s darknet53 davit_tiny
deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224 densenet121 dla34 dpn68 edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_b0 efficientnetv2_rw_t tf_efficientnet_lite0 efficientnet_b0_gn mnasnet_100 mixnet_s mobilenetv2_100 efficientvim_m1
efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_100 ghostnetv2_100 hardcorenas_a
hgnet_tiny hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnet_050 lcnetv2_small levit_128s
lowformer_b0 mambaout_femto coatnet_nano_rw_224 maxvit_tiny_tf_224 maxxvit_rmlp_nano_rw_256 poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18
mixer_s32_224 gmlp_ti16_224 resmlp_12_224 mobilenetv3_small_050 tf_mobilenetv3_small_minimal_100 mobilenetv4_conv_small fbnetv3_b mobilevit_xxs mobilevitv2_050 mvitv2_tiny
nasnetalarge nest_tiny nextvit_small nfnet_l0 dm_nfnet_f0 nf_resnet26 pit_ti_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 regnetz_b16
repghostnet_050 repvit_m0_9 res2net50_26w_4s resnest14d resnet18 resnet50 ecaresnet26t seresnext26d_32x4d resnetv2_50x1_bit resnetaa34d rexnet_100 selecsls42 legacy_seresnet18
legacy_senet154 sequencer2d_s shvit_s1 skresnet18 starnet_s1 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 swin_s3_tiny_224 tiny_vit_5m_224
tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small vgg11 vgg11_bn visformer_tiny vit_tiny_patch16_224 vit_small_patch16_224
vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224 vitamin_small_224 volo_d1_224 vovnet39a ese_vovnet19b_dw legacy_xception xception41 xcit_nano_12_p16_224
""".split()
TORCHVISION = """
alexnet googlenet shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 mobilenet_v2 mobilenet_v3_small mnasnet0_5 densenet121 efficientnet_b0 efficientnet_v2_s regnet_y_400mf
resnet18 resnext50_32x4d inception_v3 convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t vgg11
""".split()
# Sizes of a small model, under the names that configurations have.
SMALL = dict(vocab_size=100, hidden_size=32, d_model=32, dim=32, n_embd=32, embedding_size=32, num_hidden_layers=2, n_layer=2, n_layers=2, num_layers=2, encoder_layers=2, decoder_layers=2,
             num_attention_heads=2, n_head=2, n_heads=2, encoder_attention_heads=2, decoder_attention_heads=2, num_heads=2, intermediate_size=64, hidden_dim=64, d_inner=64, d_ff=64,
             encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, d_kv=16, d_head=16, num_labels=3)
TEXT = {
    "Bert": {}, "DistilBert": {}, "Roberta": {}, "XLMRoberta": {}, "Albert": {}, "Electra": {}, "Camembert": {}, "MPNet": {}, "RoFormer": {}, "SqueezeBert": {}, "ConvBert": {"head_ratio": 1},
    "Deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, "DebertaV2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16, "share_att_key": True},
    "MobileBert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32, "bottleneck_size": 32}, "XLNet": {}, "Funnel": {"block_sizes": [1, 1]},
    "GPT2": {}, "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "GPTNeoX": {}, "Llama": {"num_key_value_heads": 2}, "Qwen2": {"num_key_value_heads": 2}, "ModernBert": {"global_attn_every_n_layers": 2},
    "FNet": {}, "BigBird": {"attention_type": "original_full"}, "Bart": {}, "T5": {},
}  # fmt: skip
# Waves and images.
OTHER = {
    "Wav2Vec2": {"conv_dim": [16] * 3, "conv_stride": [5, 4, 4], "conv_kernel": [10, 8, 8], "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16},
    "ViT": {"image_size": 32, "patch_size": 8}, "Swin": {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "MobileViT": {"image_size": 64}, "ResNet": {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 16}, "Dinov2": {"image_size": 28, "patch_size": 14},
    "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
}  # fmt: skip
EXPORTERS = ("torchscript", "dynamo")
SECONDS = 240


def names():
    yield from (f"timm/{name}" for name in TIMM)
    yield from (f"torchvision/{name}" for name in TORCHVISION)
    yield from (f"transformers/{name}" for name in [*TEXT, *OTHER])


def drawn(model):
    """Without constant tensors: a zero or a tiny gain would hide its branch."""
    import torch

    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.numel() > 1 and tensor.std() == 0:
                tensor.add_(torch.randn_like(tensor) * 0.1)
            if tensor.abs().max() < 1e-3:
                tensor.copy_(torch.randn_like(tensor) * 0.1)
        for name, tensor in model.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn_like(tensor) * 0.1)
            if name.endswith("running_var"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.eval()


def images(model, sizes):
    """A batch of two of the smallest size that the model takes."""
    import torch

    for size in sizes:
        batch = torch.randn(2, 3, size, size)
        try:
            with torch.no_grad():
                model(batch)
            return {"pixel_values": batch}
        except Exception:
            if size == sizes[-1]:
                raise


def made(name):
    """The model, and its inputs by name."""
    import torch

    torch.manual_seed(0)
    kind, name = name.split("/")
    if kind == "timm":
        import timm

        model = drawn(timm.create_model(name, pretrained=False, num_classes=10))
        return model, images(model, [64, 128, model.default_cfg["input_size"][-1]])
    if kind == "torchvision":
        import torchvision

        extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        model = drawn(torchvision.models.get_model(name, weights=None, num_classes=10, **extra))
        return model, images(model, [64, 96, 224])
    import transformers

    configuration = getattr(transformers, f"{name}Config")
    own = TEXT.get(name, OTHER.get(name))
    aliases = getattr(configuration, "attribute_map", {})
    given = {key: value for key, value in SMALL.items() if aliases.get(key, key) not in own and f"{key}s" not in own} | own
    known = {"num_labels", *configuration().to_dict(), *aliases}
    configuration = configuration(**{key: value for key, value in given.items() if key in known}, attn_implementation="eager")
    task = {"Wav2Vec2": "SequenceClassification"}.get(name, "ForImageClassification" if name in OTHER else "ForSequenceClassification")
    model = drawn(getattr(transformers, name + ("For" + task).replace("ForFor", "For"))(configuration))
    model.config.use_cache = False
    model.config.decoder_start_token_id = 0
    if name == "Wav2Vec2":
        return model, {"input_values": torch.randn(2, 4000)}
    if name in OTHER:
        return model, {"pixel_values": torch.randn(2, 3, getattr(model.config, "image_size", 32), getattr(model.config, "image_size", 32))}
    ids = torch.randint(3, 100, (2, 12))
    ids[:, -1] = 2
    mask = {} if name == "FNet" else {"attention_mask": torch.ones_like(ids)}
    return model, {"input_ids": ids} | mask


def export(name, exporter, folder):
    """Writes model.onnx and inputs.npz into `folder`, and into `batch` whether the batch may be of any size."""
    import warnings

    import numpy as np
    import torch

    warnings.filterwarnings("ignore")
    model, inputs = made(name)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *given):
            made = self.model(**dict(zip(inputs, given))) if name.startswith("transformers") else self.model(*given)
            return made if isinstance(made, torch.Tensor) else made.logits

    common = dict(input_names=list(inputs), output_names=["logits"])
    for batch in ("any", "two"):
        try:
            if exporter == "dynamo":
                # One argument, *given.
                shapes = {"dynamic_shapes": (({0: torch.export.Dim("batch")},) * len(inputs),)} if batch == "any" else {}
                torch.onnx.export(Logits().eval(), tuple(inputs.values()), folder / "model.onnx", dynamo=True, external_data=False, verbose=False, **common, **shapes)
            else:
                axes = {"dynamic_axes": {key: {0: "batch"} for key in inputs}} if batch == "any" else {}
                torch.onnx.export(Logits().eval(), tuple(inputs.values()), folder / "model.onnx", dynamo=False, **common, **axes)
            break
        except Exception:
            if batch == "two":
                raise
    np.savez(folder / "inputs.npz", **{key: value.numpy() for key, value in inputs.items()})
    (folder / "batch").write_text(batch)


def exported(name, exporter, folder):
    """Exports in a process of its own; why not, where it fails."""

    def work():
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                export(name, exporter, folder)
        except BaseException as error:
            (folder / "failed").write_text(f"{type(error).__name__}: {error}"[:2000])

    # Forked, so that PyTorch is imported once; this process itself computes nothing.
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        (folder / "failed").write_text(f"more than {SECONDS} s")
    if not (folder / "batch").exists() and not (folder / "failed").exists():
        (folder / "failed").write_text(f"exit code {process.exitcode}")


def light(path, folder):
    """A graph of the first model zoo, whose weights are constants: these are drawn, so that features differ."""
    import numpy as np
    import onnx

    model, random = onnx.load(path), np.random.default_rng(0)
    graph, kept = model.graph, []
    shapes = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(shapes[node.input[0]])
            scale = np.sqrt(2 / max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.1
            values = random.normal(size=shape) * scale + (1.0 if len(shape) == 1 else 0.0)
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    initial = {one.name for one in graph.initializer}
    read = [one for one in graph.input if one.name not in initial]
    inputs = {one.name: random.normal(size=[dim.dim_value for dim in one.type.tensor_type.shape.dim]).astype(np.float32) for one in read}
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **inputs)


def features(dice, folder, runtime, threads):
    """What `dice features` makes of the model in `folder`: an array, or why not."""
    from safetensors.numpy import load_file

    out = folder / "features.safetensors"
    command = [dice, "features", "--threads", str(threads), "--runtime", runtime, "--model", folder / "model.onnx", "--inputs", folder / "inputs.npz", "-o", out]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"more than {SECONDS} s"
    return load_file(out)["features"] if done.returncode == 0 else done.stderr


def reason(message):
    """The line of an error that says what was found."""
    lines = [line for line in message.splitlines() if line.startswith("error: ")] or message.splitlines() or ["?"]
    said = re.sub(r"^error: \S+model\.onnx: |; ONNX Runtime may run it.*", "", lines[0])
    return re.sub(r"\s+", " ", said)[:240].replace("|", "/")


def levels_apart(folder):
    """How far ONNX Runtime is from itself, without its optimisations, in the logits: what rounding alone does to this network."""
    import numpy as np
    import onnxruntime

    given, logits = dict(np.load(folder / "inputs.npz")), []
    for level in (onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        logits.append(onnxruntime.InferenceSession(folder / "model.onnx", options).run(None, given)[0])
    return float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())


def compared(dice, folder, library, threads):
    """The largest difference relative to the largest feature, or why there is none."""
    import numpy as np

    expected = features(dice, folder, f"onnxruntime={library}", threads)
    if isinstance(expected, str):
        return "no head", reason(expected)
    made = features(dice, folder, "built-in", threads)
    if isinstance(made, str):
        return "fails", reason(made)
    error = float(np.abs(made - expected).max() / np.abs(expected).max())
    if error <= 1e-5:
        return "runs", f"{error:.0e}"
    own = levels_apart(folder)
    return ("runs" if error <= 3 * own else "differs"), f"{error:.0e}; ONNX Runtime with and without its optimisations {own:.0e}"


def case(name, exporter, folder, arguments, library):
    """Outcome, and the row of the table."""
    import onnx

    if not (folder / "inputs.npz").exists() and not (folder / "failed").exists():
        light(name, folder) if exporter == "light" else exported(name, exporter, folder)
    name = pathlib.Path(name).stem if exporter == "light" else name
    if (folder / "failed").exists():
        return "no export", (name, exporter, "", "", "no export", reason((folder / "failed").read_text()))
    operators = {node.op_type for node in onnx.load(folder / "model.onnx", load_external_data=False).graph.node}
    batch = (folder / "batch").read_text() if (folder / "batch").exists() else "fixed"
    outcome, said = ("exported", "") if arguments.only_export else compared(arguments.dice, folder, library, arguments.threads)
    return outcome, (name, exporter, len(operators), batch, outcome, said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="models whose names hold one of these")
    parser.add_argument("--exporter", nargs="+", choices=EXPORTERS, default=EXPORTERS)
    parser.add_argument("--light", action="store_true", help="the graphs of the package onnx instead")
    parser.add_argument("--dice", default="target/release/dice", help="the binary")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=pathlib.Path, help="a folder that keeps the exported models, some 20 GB, for the next time")
    parser.add_argument("--only-export", action="store_true", help="runs nothing")
    arguments = parser.parse_args()
    import onnx
    import onnxruntime

    capi = pathlib.Path(onnxruntime.__file__).parent / "capi"
    library = next(path for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll") for path in sorted(capi.glob(pattern)))
    graphs = sorted((pathlib.Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
    cases = [(str(path), "light") for path in graphs] if arguments.light else [(name, exporter) for name in names() for exporter in arguments.exporter]
    cases = [(name, exporter) for name, exporter in cases if not arguments.only or any(text in name for text in arguments.only)]
    if not arguments.light:
        import onnxscript, timm, torch.onnx, torchvision, transformers  # noqa: F401, E401
    counts = {exporter: collections.Counter() for _, exporter in cases}
    print(f"| model | exporter | operators | batch | outcome | error, or reason |\n| {' | '.join(['---'] * 6)} |", flush=True)
    for name, exporter in cases:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.keep:
                folder = arguments.keep / f"{pathlib.Path(name).stem if exporter == 'light' else name.replace('/', '-')}-{exporter}"
                folder.mkdir(parents=True, exist_ok=True)
            outcome, row = case(name, exporter, pathlib.Path(folder), arguments, library)
            counts[exporter][outcome] += 1
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    for exporter, outcomes in counts.items():
        print(f"\n{exporter}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}")


if __name__ == "__main__":
    main()
