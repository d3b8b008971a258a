"""Sentence embeddings as sentence-transformers computes them: BERT, the mean over the tokens, length 1.

Devlin et al., "BERT" (arXiv 1810.04805); Reimers and Gurevych, "Sentence-BERT" (arXiv 1908.10084). The
model's folder says its sizes; of its kinds only those of all-MiniLM-L6-v2 are understood.
"""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Tokenizer

from embed import safetensors

_KNOWN = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


class Encoder:
    """The model in `folder`, its weights mapped. Texts are cut at `max_seq_length` tokens."""

    def __init__(self, folder: str) -> None:
        config = _read(f"{folder}/config.json")
        for key, value in _KNOWN.items():
            if config[key] != value:
                raise ValueError(f"{key} is {config[key]!r}, expected {value!r}")
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.epsilon = config["layer_norm_eps"]
        self.weights = safetensors.load(f"{folder}/model.safetensors")
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.no_padding()
        limit = _read(f"{folder}/sentence_bert_config.json")["max_seq_length"]
        self.tokenizer.enable_truncation(limit)

    def encode(self, text: str) -> tuple[np.ndarray, int]:
        """The embedding, of float32 and length 1, and the number of tokens."""
        ids = self.tokenizer.encode(text).ids
        embedded = self.weights["embeddings.word_embeddings.weight"][ids]
        embedded = embedded + self.weights["embeddings.position_embeddings.weight"][: len(ids)]
        embedded += self.weights["embeddings.token_type_embeddings.weight"][0]
        states = self._normalised(embedded, "embeddings.LayerNorm")
        for number in range(self.layers):
            states = self._layer(states, f"encoder.layer.{number}")
        mean = states.mean(axis=0)
        return mean / np.sqrt((mean * mean).sum()), len(ids)

    def _layer(self, states: np.ndarray, layer: str) -> np.ndarray:
        attended = self._dense(
            self._attention(states, f"{layer}.attention.self"), f"{layer}.attention.output.dense"
        )
        states = self._normalised(states + attended, f"{layer}.attention.output.LayerNorm")
        inner = _gelu(self._dense(states, f"{layer}.intermediate.dense"))
        return self._normalised(
            states + self._dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
        )

    def _attention(self, states: np.ndarray, place: str) -> np.ndarray:
        tokens, width = states.shape
        size = width // self.heads
        query, key, value = (
            self._dense(states, f"{place}.{name}").reshape(tokens, self.heads, size).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(size**0.5)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).transpose(1, 0, 2).reshape(tokens, width)

    def _dense(self, states: np.ndarray, place: str) -> np.ndarray:
        return states @ self.weights[f"{place}.weight"].T + self.weights[f"{place}.bias"]

    def _normalised(self, states: np.ndarray, place: str) -> np.ndarray:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self.epsilon))
        return scaled * self.weights[f"{place}.weight"] + self.weights[f"{place}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution's integral; numpy has no error function.

    Abramowitz and Stegun, 7.1.26: off by at most 1.5e-7, what float32 has anyway.
    """
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    powers = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        powers = (powers + np.float32(factor)) * t
    return x * np.float32(0.5) * (1 + np.sign(x) * (1 - powers * np.exp(-z * z)))


def _read(path: str) -> dict[str, int | float | str]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as in safetensors.py
        return json.load(file)
