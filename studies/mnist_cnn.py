"""The same question for a small convolutional net: other layers, other answer."""

from batchopt import Goal, SearchSpace, Task, powers_of_two, run_script
from batchopt.datasets import load_mnist


def build_model(learning_rate):
    import keras
    from keras.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D

    layers = [Conv2D(16, 3, activation="relu"), BatchNormalization(), MaxPooling2D()]
    layers += [Conv2D(32, 3, activation="relu"), MaxPooling2D(), Flatten(), Dropout(0.25), Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    run_script(
        Task(build_model, load_mnist),
        SearchSpace(batch_size=powers_of_two(16, 2048), learning_rate=(1e-4, 1e-1)),
        Goal(epochs=3),
    )
