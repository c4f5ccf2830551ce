#!/usr/bin/env python3
"""Golden scores of methods that look at the space of features, on small made-up data.

    pip install numpy torch scikit-learn safetensors pytorch-ood
    python make_space.py        # rewrites space.safetensors beside this file

`pytorch-ood` scores come from its detectors, signs turned so that higher = more in-distribution; the others from numpy and
scikit-learn in f64, as OpenOOD or the authors write them. Last run with numpy 2.4.6, torch 2.15.0, scikit-learn 1.9,
pytorch-ood 0.4.0.
"""
import pathlib

import numpy as np
import torch
from pytorch_ood.detector import PNML, RMD, Mahalanobis, NNGuide
from safetensors.numpy import save_file
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance, oas
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent
UNITS, CLASSES = 16, 5


def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(0.3, 0.7, (CLASSES, UNITS))
    labels = np.arange(600) % CLASSES
    features = np.maximum(centres[labels] + rng.normal(0, 0.6, (600, UNITS)), 0)
    test = np.maximum(centres[np.arange(80) % CLASSES] + rng.normal(0, 0.9, (80, UNITS)), 0)
    weight = 2 * centres + rng.normal(0, 0.2, (CLASSES, UNITS))
    bias = rng.normal(0, 0.1, CLASSES)
    return [x.astype(np.float32) for x in (features, test, weight, bias)] + [labels.astype(np.int64)]


def mahalanobis(train, labels, test, covariance, relative):
    means = np.stack([train[labels == c].mean(0) for c in range(CLASSES)])
    tied = covariance(train - means[labels])
    apart = test[:, None] - means
    score = -np.einsum("ncd,de,nce->nc", apart, np.linalg.inv(tied), apart).min(1)
    if relative:
        centred = test - train.mean(0)
        whole = covariance(train - train.mean(0))
        score += np.einsum("nd,de,ne->n", centred, np.linalg.inv(whole), centred)
    return score


def main():
    train32, test32, weight32, bias32, labels = data()
    train, test, weight, bias = (x.astype(np.float64) for x in (train32, test32, weight32, bias32))
    sphere = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    out = {}

    plain = lambda x: EmpiricalCovariance(assume_centered=True).fit(x).covariance_
    shrunk = lambda x: oas(x, assume_centered=True)[0]
    for words, covariance in (("shrinkage=none", plain), ("", shrunk)):
        given = f"({words})" if words else ""
        out[f"mds{given}"] = mahalanobis(train, labels, test, covariance, False)
        out[f"rmds{given}"] = mahalanobis(train, labels, test, covariance, True)
        out[f"mds++{given}"] = mahalanobis(sphere(train), labels, sphere(test), covariance, False)
        out[f"rmds++{given}"] = mahalanobis(sphere(train), labels, sphere(test), covariance, True)
    predicted = (train @ weight.T + bias).argmax(1)
    out["mds(by=prediction, shrinkage=none)"] = mahalanobis(train, predicted, test, plain, False)

    logits, train_logits = test @ weight.T + bias, train @ weight.T + bias
    energy, train_energy = logsumexp(logits, axis=1), logsumexp(train_logits, axis=1)

    # The authors of ViM: numpy's eigenvectors of the second moment about u.
    u = -np.linalg.pinv(weight) @ bias
    values, vectors = np.linalg.eigh(EmpiricalCovariance(assume_centered=True).fit(train - u).covariance_)
    outside = vectors[:, np.argsort(-values)[7:]]
    out["residual(7)"] = -np.linalg.norm((test - u) @ outside, axis=1)

    # The authors of NECO.
    scaler = StandardScaler().fit(train)
    pca = PCA(UNITS).fit(scaler.transform(train))
    whole = scaler.transform(test)
    share = np.linalg.norm(pca.transform(whole)[:, :6], axis=1) / np.linalg.norm(whole, axis=1)
    out["neco(6)"] = share * logits.max(1)

    # The authors of the relation graph, and OpenOOD.
    edges = np.maximum(sphere(test) @ sphere(train).T, 0) * (softmax(logits, axis=1) @ softmax(train_logits, axis=1).T)
    edges = np.where(edges > 0.03, edges, 0)
    out["relation"] = edges.sum(1)
    out["relation(2)"] = (edges**2).sum(1)

    # CORE: residuals of the least-squares projection on the rows of W.
    residual = lambda x: x - (np.linalg.pinv(weight) @ (weight @ x.T)).T
    directions = sphere(np.stack([residual(train[labels == c]).mean(0) for c in range(CLASSES)]))
    cosine = lambda x: (sphere(residual(x)) @ directions.T).max(1)
    standard = lambda x, of: (x - of.mean()) / of.std()
    out["core"] = standard(energy, train_energy) + standard(cosine(test), cosine(train))

    torch_train, torch_test, torch_labels = (torch.from_numpy(x) for x in (train32, test32, labels))
    head = torch.nn.Linear(UNITS, CLASSES)
    head.load_state_dict({"weight": torch.from_numpy(weight32), "bias": torch.from_numpy(bias32)})
    # pytorch-ood halves the distance and does not divide the covariances by N.
    count = len(train)
    peers = {
        "mds(shrinkage=none)": (Mahalanobis(None), 2 * count),
        "rmds(shrinkage=none)": (RMD(None), count),
        "nnguide(10, alpha=1)": (NNGuide(None, head, 10), 1),
        # It divides by log C.
        "pnml(ridge=0)": (PNML(None, head), np.log(CLASSES)),
    }
    for spec, (peer, scale) in peers.items():
        with torch.no_grad():
            scores = peer.fit_features(torch_train, torch_labels).predict_features(torch_test)
        out[f"pytorch-ood {spec}"] = -scale * scores.numpy().astype(np.float64)

    gram = sphere(train).T @ sphere(train)
    gram += 1e-3 * np.trace(gram) / UNITS * np.eye(UNITS)
    xi = np.einsum("nd,de,ne->n", sphere(test), np.linalg.inv(gram), sphere(test))[:, None]
    p = softmax(sphere(test) @ weight.T + bias, axis=1)
    out["pnml"] = -np.log((p / (p + p ** (xi / (1 + xi)) * (1 - p))).sum(1))

    scores = {f"score {name}": np.ascontiguousarray(score, dtype=np.float64) for name, score in out.items()}
    tensors = {"features": train32, "numbers": labels, "fc.weight": weight32, "fc.bias": bias32, "test": test32}
    save_file(tensors | scores, HERE / "space.safetensors")


if __name__ == "__main__":
    main()
