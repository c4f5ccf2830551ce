"""examples/serve.py with torch in place of the detector: the dense head, `logsumexp`, and p-values among calibration scores."""

import os

import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Request

held = {name: torch.from_numpy(values) for name, values in np.load(os.environ["HEAD"]).items()}
torch.set_num_threads(1)
app = FastAPI(title="torch")


@app.post("/score")
@torch.inference_mode()
async def score(request: Request) -> dict[str, list]:
    try:
        if request.headers.get("content-type") == "application/octet-stream":
            features = torch.frombuffer(bytearray(await request.body()), dtype=torch.float32).reshape(-1, held["weight"].shape[1])
        else:
            features = torch.tensor((await request.json())["features"])
        logits = torch.nn.functional.linear(features, held["weight"], held["bias"])
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise HTTPException(422, str(error)) from None
    found = torch.logsumexp(logits, dim=1)
    p_value = (1 + torch.searchsorted(held["calibration"], found, right=True)) / (len(held["calibration"]) + 1)
    answer = {"score": found, "p_value": p_value, "is_ood": found < held["threshold"], "prediction": logits.argmax(dim=1)}
    return {name: values.tolist() for name, values in answer.items()}
