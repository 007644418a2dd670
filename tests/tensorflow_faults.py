"""Faults of a TensorFlow project: those of `faults.py` that have a place in it, and its own."""

from faults import Fault

_SEEDING, _STATE = "repro/backend/seeding.py", "repro/backend/state.py"
_LOADER = "repro/backend/loader.py"

OWN = [
    Fault(group, name, file, old, new)
    for group, name, file, old, new in (
        (
            "seed",
            "no library is seeded",
            _SEEDING,
            "    keras.utils.set_random_seed(seed)  # random, NumPy, TensorFlow\n",
            "",
        ),
        (
            "seed",
            "one key for all layers",
            _SEEDING,
            "start_layer(state, derive(seed, *path, place))",
            "start_layer(state, derive(seed, *path))",
        ),
        (
            "seed",
            "layers draw by a counter of their own",
            _SEEDING,
            "        start_layer(state, derive(seed, *path, place))\n",
            "        pass\n",
        ),
        (
            "seed",
            "initial weights from the seed of the process",
            _SEEDING,
            "    random.seed(derive(seed, *path))\n",
            "",
        ),
        (
            "seed",
            "a layer's key of half its bits",
            _SEEDING,
            "np.array([key >> 32, key & 0x7FFFFFFF], dtype=np.int64)",
            "np.array([0, key & 0xF], dtype=np.int64)",
        ),
        (
            "numerics",
            "op determinism is never on",
            _SEEDING,
            "        tf.config.experimental.enable_op_determinism()\n",
            "        pass\n",
        ),
        (
            "numerics",
            "the threads are not pinned",
            _SEEDING,
            "            threads.set_intra_op_parallelism_threads(determinism.num_threads)\n",
            "            pass\n",
        ),
        (
            "numerics",
            "products in TF32",
            _SEEDING,
            'determinism.matmul_precision == "tf32"',
            "True",
        ),
        (
            "numerics",
            "the precision of whoever came before",
            _SEEDING,
            '    keras.config.set_floatx("float32")\n',
            "",
        ),
        (
            "numerics",
            "a switch as it was wanted, not as it is",
            _SEEDING,
            '"deterministic_algorithms": _op_determinism(),',
            '"deterministic_algorithms": True,',
        ),
        (
            "data",
            "batches in the order of arrival",
            _LOADER,
            "                    yield waiting.popleft().result()\n            while",
            "                    yield waiting.pop().result()\n            while",
        ),
        (
            "data",
            "the last batches are lost",
            _LOADER,
            "            while waiting:\n                yield waiting.popleft().result()\n",
            "",
        ),
        (
            "data",
            "one generator for all threads",
            "repro/random/streams.py",
            "self._here = threading.local()",
            "self._here = type('', (), {})()",
        ),
        (
            "evaluation",
            "evaluation keeps dropout",
            "train.py",
            "logits = model(images, training=False)",
            "logits = model(images, training=True)",
        ),
        (
            "evaluation",
            "training without dropout",
            "train.py",
            "logits = model(images, training=True)",
            "logits = model(images, training=False)",
        ),
        (
            "evaluation",
            "validation in place of the test",
            "train.py",
            "evaluate(data.test)",
            "evaluate(data.val)",
        ),
        (
            "evaluation",
            "the mean of a batch in place of its sum",
            "train.py",
            "return tf.reduce_sum(cross_entropy(labels, logits))",
            "return tf.reduce_mean(cross_entropy(labels, logits))",
        ),
        (
            "evaluation",
            "losses are rounded in the log",
            "train.py",
            "run.log_step(loss=loss,",
            "run.log_step(loss=round(float(loss), 3),",
        ),
        (
            "resume",
            "half precision in the checkpoint",
            _STATE,
            "{variable.path: np.array(variable.numpy())",
            '{variable.path: np.array(variable.numpy().astype("float16").astype(variable.dtype))',
        ),
        (
            "resume",
            "only trainable weights are saved",
            _STATE,
            "return each.weights  #",
            "return each.trainable_weights  #",
        ),
        (
            "resume",
            "the optimizer's step is not saved",
            _STATE,
            "        return each.variables\n",
            "        return each.variables[2:]\n",
        ),
        (
            "resume",
            "Keras's optimizer starts afresh, and nobody looks",
            _STATE,
            "            variable.assign(state[name][variable.path])\n",
            '            if name != "optimizer":\n'
            "                variable.assign(state[name][variable.path])\n"
            "            else:\n"
            "                state[name][variable.path] = np.array(variable.numpy())\n",
        ),
        (
            "resume",
            "Keras's weights start afresh, and nobody looks",
            _STATE,
            "            variable.assign(state[name][variable.path])\n",
            '            if name != "model":\n'
            "                variable.assign(state[name][variable.path])\n"
            "            else:\n"
            "                state[name][variable.path] = np.array(variable.numpy())\n",
        ),
        (
            "resume",
            "what is loaded is not assigned",
            _STATE,
            "            variable.assign(state[name][variable.path])\n",
            "            pass\n",
        ),
        (
            "resume",
            "the live state after loading is not checked",
            _STATE,
            "    if digest({**state, **capture(objects)}) != digest(state):\n",
            "    if False:\n",
        ),
        (
            "resume",
            "the state changes while it is written",
            _STATE,
            "np.array(variable.numpy()) for variable",
            "variable for variable",
        ),
        (
            "resume",
            "the state's digest sees no values",
            _STATE,
            "        total.update(array.tobytes())\n",
            "",
        ),
        (
            "resume",
            "a scalar becomes a vector",
            _STATE,
            'np.array(node, order="C")',
            "np.ascontiguousarray(node)",
        ),
        (
            "resume",
            "the file depends on the process",
            _STATE,
            'to_safetensors(arrays, {"checkpoint": plain})',
            'to_safetensors(arrays, {"checkpoint": plain, "a": "1", "b": "2", "c": "3"})',
        ),
        (
            "surroundings",
            "somebody's keras.json has a say",
            "repro/backend/facts.py",
            '    "KERAS_HOME": f"{os.devnull}/keras",\n',
            "",
        ),
    )
]
