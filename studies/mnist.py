"""Which batch size, and which learning rate with it, should a small MLP on MNIST be trained with?"""

from batchopt import Goal, SearchSpace, Task, powers_of_two, run_script
from batchopt.datasets import load_mnist


def build_model(learning_rate):
    import keras
    from keras.layers import Dense, Flatten

    model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(128, "relu"), Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    run_script(
        Task(build_model, load_mnist),
        SearchSpace(batch_size=powers_of_two(8, 8192), learning_rate=(1e-4, 1e-1)),
        Goal(epochs=5),
    )
