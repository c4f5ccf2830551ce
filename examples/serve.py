"""A service that says of features whether they are in-distribution: 30 lines, as many workers as you like.

    pip install fastapi uvicorn numpy dice_ood-*.whl
    DETECTOR=detector.safetensors uvicorn --app-dir examples serve:app --workers 2
    curl -s localhost:8000/score -H 'content-type: application/json' -d '{"features": [[0.1, 0.2, ...]]}'

Rows go in as JSON, or as little-endian f32 [n, D] with the content type application/octet-stream, which costs less.
"""

import os

import numpy as np
from fastapi import FastAPI, HTTPException, Request

import dice_ood as dice

detector = dice.load(os.environ.get("DETECTOR", "detector.safetensors"))
app = FastAPI(title="dice-ood")


@app.post("/score")
async def score(request: Request) -> dict[str, list]:
    try:
        if request.headers.get("content-type") == "application/octet-stream":
            features = np.frombuffer(await request.body(), "<f4").reshape(-1, detector.n_features_in_)
        else:
            # An array, as a detector would read a text as the name of a file.
            features = np.array((await request.json())["features"], "<f4")
        found = detector(features)
    except (ValueError, TypeError, KeyError) as error:  # What is wrong with the input is the caller's to know.
        raise HTTPException(422, str(error)) from None
    return {name: values.tolist() for name, values in found.to_dict().items()}
