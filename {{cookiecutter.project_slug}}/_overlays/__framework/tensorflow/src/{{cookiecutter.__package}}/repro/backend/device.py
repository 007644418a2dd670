"""Devices: choosing one for a run, describing it, and preparing models for it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .quiet import keras, tf
from .seeding import register

CPU = "cpu"


def resolve_device(name: str, local_rank: int = 0) -> str:
    """`cpu` or `cuda`; `auto` is the first GPU, if there is one. GPUs that are not used are hidden.

    Raises:
        ValueError: `cuda` was asked for and TensorFlow sees no GPU, or it has computed already.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "cuda" and not gpus:
        built = tf.sysconfig.get_build_info().get("cuda_version")
        build = f"built for CUDA {built}" if built else "a CPU build"
        raise ValueError(
            f"the device is cuda, but TensorFlow {tf.__version__} ({build}) sees no GPU; "
            "use the device cpu, or check the driver with nvidia-smi"
        )
    chosen = gpus[:1] if gpus and name != "cpu" else []
    if tf.config.get_visible_devices("GPU") != chosen or chosen:
        try:
            tf.config.set_visible_devices(chosen, "GPU")
            for gpu in chosen:  # or the first process to compute would take all of its memory
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            raise ValueError(
                "TensorFlow has computed in this process; run.use comes before the first tensor"
            ) from None
    return "cuda" if chosen else CPU


def place(module: keras.layers.Layer, device: str) -> keras.layers.Layer:
    """Let a model's layers draw from the streams of the run; TensorFlow places what it computes.

    Raises:
        ValueError: it is no Keras model or layer.
    """
    if not isinstance(module, keras.layers.Layer):
        raise ValueError(f"run.place takes a Keras model, got {type(module).__name__}")
    register(module)
    return module


def move(batch: Any, device: str) -> Any:
    """The batch as it is: arrays are copied to the device by the function that takes them."""
    return batch


def wait_for_device() -> None:
    """Wait until the GPU has done all its work, if there is one."""
    if tf.config.get_visible_devices("GPU"):
        tf.test.experimental.sync_devices()


def mixed_precision() -> AbstractContextManager[None]:
    """No context can do it: a Keras model takes its precision when it is built.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "mixed precision is a policy of the layers: build them with dtype='mixed_bfloat16'"
    )


def describe_accelerator() -> dict[str, Any]:
    """What the manifest records about GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    driver = Path("/proc/driver/nvidia/version")
    build = tf.sysconfig.get_build_info()
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    gpus = [each.get("device_name", "unknown") for each in details]
    return {
        "gpus": gpus,
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version") if gpus else None,
    }
