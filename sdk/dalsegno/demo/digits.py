"""A pipeline on real input: it learns to read the 1,797 handwritten digits that scikit-learn brings along."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from dalsegno import pipeline, step

Features = NDArray[np.float64]
"""One row an image: the darkness of its 8 × 8 pixels."""
Labels = NDArray[np.int64]
"""The digit that each image shows."""
Counts = list[list[int]]

SEED = 7


@step
def load() -> tuple[Annotated[Features, "images"], Annotated[Labels, "labels"]]:
    """Read the images; 64 numbers from 0 to 16 each."""
    images, labels = load_digits(return_X_y=True)
    return images, labels


@step
def split(
    images: Features, labels: Labels, test_fraction: float
) -> tuple[
    Annotated[Features, "train_images"],
    Annotated[Features, "test_images"],
    Annotated[Labels, "train_labels"],
    Annotated[Labels, "test_labels"],
]:
    """Keep a part of the images away from training, each digit in proportion."""
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=test_fraction, random_state=SEED, stratify=labels
    )
    return train_images, test_images, train_labels, test_labels


@step
def scale(
    train_images: Features, test_images: Features
) -> tuple[Annotated[Features, "train_scaled"], Annotated[Features, "test_scaled"]]:
    """Bring every pixel to mean 0 and variance 1, as measured on the training images."""
    scaler = StandardScaler().fit(train_images)
    return scaler.transform(train_images), scaler.transform(test_images)


@step
def train(
    images: Features, labels: Labels, strength: float
) -> tuple[Annotated[Features, "weights"], Annotated[Features, "biases"]]:
    """Fit a logistic regression; the model is ten rows of weights and ten biases.

    Args:
        images: Scaled images.
        labels: What they show.
        strength: How far the model may follow the data, scikit-learn's ``C``: the smaller, the more it is held back.
    """
    model = LogisticRegression(C=strength, max_iter=2000).fit(images, labels)
    return model.coef_, model.intercept_


@step
def evaluate(
    images: Features, labels: Labels, weights: Features, biases: Features
) -> tuple[Annotated[Labels, "predicted"], Annotated[float, "accuracy"]]:
    """Read the test images, and say which share was read rightly."""
    predicted = np.argmax(images @ weights.T + biases, axis=1)
    return predicted, float(metrics.accuracy_score(labels, predicted))


@step
def confusion_matrix(labels: Labels, predicted: Labels) -> Annotated[Counts, "matrix"]:
    """Count how often each digit (row) was read as each digit (column)."""
    matrix: Counts = metrics.confusion_matrix(labels, predicted, labels=range(10)).tolist()
    return matrix


@pipeline
def digits(test_fraction: float = 0.25, strength: float = 0.001) -> tuple[float, Counts]:
    """Load, split, scale, train, evaluate, and count the confusions."""
    images, labels = load()
    train_images, test_images, train_labels, test_labels = split(images, labels, test_fraction)
    train_scaled, test_scaled = scale(train_images, test_images)
    weights, biases = train(train_scaled, train_labels, strength)
    predicted, accuracy = evaluate(test_scaled, test_labels, weights, biases)
    return accuracy, confusion_matrix(test_labels, predicted)
