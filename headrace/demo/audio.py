"""Audio for the demo: spoken words where this machine has some, and a voice that is made otherwise."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Mono, -1 to 1."""

SPOKEN = Path("/usr/share/sounds/alsa")
"""Debian's alsa-utils puts eight recordings of spoken words there."""
_FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (660, 1720, 2410))
"""Of /a/, /i/, /o/ and /ae/, for men: Peterson and Barney, "Control methods used in a study of the vowels" (1952)."""


def recordings(files: Sequence[Path], rate: int) -> list[Samples]:
    """The files, or the spoken words of this machine, or three made voices.

    Raises:
        ValueError: a file is not 16-bit PCM, or its rate is no whole multiple of `rate`.
    """
    found = files or sorted(SPOKEN.glob("*.wav"))
    return [read_wav(path, rate) for path in found] or [made_voice(number, rate) for number in range(3)]


def read_wav(path: Path, rate: int) -> Samples:
    with wave.open(str(path)) as file:
        every = file.getframerate() // rate
        if file.getsampwidth() != 2 or not every or file.getframerate() % rate:
            raise ValueError(f"{path}: expected 16-bit PCM at {rate} Hz or a whole multiple of it")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    mono = samples.mean(axis=1) / 32768
    if every > 1:
        # A windowed sinc keeps what is above half of the new rate from being folded down.
        taps = np.sinc(np.arange(-32 * every, 32 * every + 1) / every) * np.blackman(64 * every + 1)
        mono = np.convolve(mono, taps / taps.sum(), "same")[::every]
    return np.asarray(mono, np.float32)


def made_voice(seed: int, rate: int, seconds: float = 4.0) -> Samples:
    """Vowels with pauses between them: pulses of a voice through three resonances each.

    As in D. H. Klatt, "Software for a cascade/parallel formant synthesizer" (1980), equation 1, without its noise.
    """
    generator = np.random.default_rng(seed)
    pieces: list[NDArray[np.float64]] = []
    while sum(map(len, pieces)) < seconds * rate:
        formants = _FORMANTS_HZ[generator.integers(len(_FORMANTS_HZ))]
        pieces += [_vowel(formants, 90 + 60 * generator.random(), rate), np.zeros(int(rate * 0.4 * generator.random()))]
    voice = np.concatenate(pieces)[: int(seconds * rate)]
    return np.asarray(0.5 * voice / np.abs(voice).max(), np.float32)


def _vowel(formants: tuple[int, ...], pitch_hz: float, rate: int) -> NDArray[np.float64]:
    count = int(0.3 * rate)
    phase = np.cumsum(pitch_hz * (1 + 0.05 * np.sin(2 * np.pi * 5 * np.arange(count) / rate)) / rate)
    sound = np.diff(np.floor(phase), prepend=0.0)
    for formant in formants:
        radius = np.exp(-np.pi * 80 / rate)
        b, c = 2 * radius * np.cos(2 * np.pi * formant / rate), -radius * radius
        before = twice_before = 0.0
        for index, value in enumerate(sound):
            before, twice_before = (1 - b - c) * value + b * before + c * twice_before, before
            sound[index] = before
    return np.asarray(sound * np.hanning(count))


def streams(sounds: Sequence[Samples], count: int, seconds: float, rate: int) -> list[Samples]:
    """As many streams, no two alike: the recordings in turn, each stream from another one on, over faint noise."""
    length = int(seconds * rate)
    made = []
    for number in range(count):
        first = number % len(sounds)
        pause = np.zeros(rate // 8 * (1 + number % 5), np.float32)
        round_ = np.concatenate([part for sound in (*sounds[first:], *sounds[:first]) for part in (sound, pause)])
        noise = np.random.default_rng(number).standard_normal(length).astype(np.float32) * np.float32(0.001)
        made.append(np.resize(round_, length) + noise)
    return made
