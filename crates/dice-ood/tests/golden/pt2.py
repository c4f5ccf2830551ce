#!/usr/bin/env python3
"""The weights of an exported program with a head, for the reader of `.pt2`.

    pip install torch
    python pt2.py        # rewrites head.pt2

The program itself is left out of the archive: it names files of the machine that it was traced on. Last run with torch 2.15.0.
"""
import pathlib
import tempfile
import zipfile

import torch


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 5)
        self.turned = torch.nn.Parameter(torch.zeros(8, 5).t())
        self.offset = torch.nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return self.fc(x) + x @ self.turned.t() + self.offset


model = Classifier().eval()
with torch.no_grad():
    model.fc.weight.copy_(torch.arange(40.0).reshape(5, 8))
    model.fc.bias.copy_(torch.arange(5) + 0.5)
program = torch.export.export(model, (torch.zeros(1, 8),))
with tempfile.TemporaryDirectory() as folder:
    whole = pathlib.Path(folder) / "head.pt2"
    torch.export.save(program, whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(pathlib.Path(__file__).parent / "head.pt2", "w") as written:
        for member in read.infolist():
            if "/data/weights/" in member.filename or member.filename.count("/") == 1:
                written.writestr(member, read.read(member))
