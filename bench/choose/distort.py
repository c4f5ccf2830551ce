"""Distortions of images that keep what a pixel is and lose what the image shows: stand-ins for OOD inputs."""

import numpy as np
from PIL import Image


def phase(images, generator):
    """One random field of phases added to all spectra; amplitudes stay."""
    field = np.angle(np.fft.fft2(generator.standard_normal(images.shape[1:3])))
    field = field.reshape(field.shape + (1,) * (images.ndim - 3))
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * np.exp(1j * field), axes=(1, 2)).real.clip(0, 1)


def resized(image, side):
    planes = np.moveaxis(np.atleast_3d(image), 2, 0)
    parts = [np.asarray(Image.fromarray(np.float32(plane)).resize((side, side), Image.BILINEAR)) for plane in planes]
    return np.stack(parts, -1).reshape((side, side) + image.shape[2:])


def zoom(images, generator):
    side = images.shape[1]
    part = max(2, round(side * 3 / 8))
    corners = generator.integers(0, side - part + 1, (len(images), 2))
    return np.stack([resized(image[y : y + part, x : x + part], side) for image, (y, x) in zip(images, corners)])


def blur(images):
    side = images.shape[1]
    frequencies = np.fft.fftfreq(side)
    kernel = np.exp(-2 * (np.pi * side / 10) ** 2 * (frequencies[:, None] ** 2 + frequencies**2))
    kernel = kernel.reshape(kernel.shape + (1,) * (images.ndim - 3))
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * kernel, axes=(1, 2)).real


def jigsaw(images):
    """The four quarters, in the order 4 3 2 1."""
    half = images.shape[1] // 2
    return np.roll(images, (half, half), (1, 2))


def shuffled(images, generator):
    side = images.shape[1]
    order = generator.permutation(side * side)
    return images.reshape((len(images), side * side) + images.shape[3:])[:, order].reshape(images.shape)


def pictures(images, generator):
    """Eight distortions of images [N, S, S] or [N, S, S, 3] from 0 to 1, f32."""
    images = np.float64(images)
    changed = {
        "flipud": images[:, ::-1],
        "rot90": np.rot90(images, axes=(1, 2)),
        "imix": (images + images[generator.permutation(len(images))]) / 2,
        "jig2": jigsaw(images),
        "phase": phase(images, generator),
        "zoom": zoom(images, generator),
        "pixshuf": shuffled(images, generator),
        "blur": blur(images),
    }
    return {name: np.ascontiguousarray(part, dtype=np.float32) for name, part in changed.items()}
