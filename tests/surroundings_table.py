"""Other people's surroundings: what is around a command, and how it is known that it really was.

A row is a line of data. Its command is started by a shell that has set everything up, and that
first asks for the `proof`: a disturbance that did not happen fails the row, whatever came of it.
"""

from dataclasses import dataclass, field, replace

EVERY = ("train", "resume", "verify", "compare", "doctor")
"""The commands of a project that need its environment; `test` and `setup`: `test_places.py`."""
SAME, REFUSED = "same bits, same record", "one line, nothing changed"


@dataclass(frozen=True)
class Row:
    """One kind of surroundings, and what must come of each verb there."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    before: str = ""
    """Lines of the shell that starts the command."""
    around: str = "{command}"
    """How it starts it: redirections, a wrapper."""
    proof: str = ""
    """A condition of that shell; by default that every variable has its value."""
    verbs: tuple[str, ...] = EVERY
    refused: str = ""
    """A pattern of the one line on stderr, where the command must be refused."""
    exit_code: int = 2
    recorded: tuple[str, ...] = ()
    """Facts that the record names because of it: `compare` lists them, and no other."""
    joined: bool = False
    """Whether another row of the family sets its variables, too; alone it is in the slow tier."""

    @property
    def condition(self) -> str:
        """What the shell checks before it starts the command."""
        wanted = [f'[ "${name}" = "{value}" ]' for name, value in self.env.items()]
        return " && ".join([*([self.proof] if self.proof else []), *wanted])


def _in(verbs: str, *rows: Row) -> list[Row]:
    """The rows, tried with these commands unless they name others; what a row puts into the record
    is asked of a resumed run too."""

    def tried(row: Row) -> tuple[str, ...]:
        first, *others = verbs.split()
        return (first, *(["resume"] if row.recorded else []), *others)

    return [replace(row, verbs=tried(row)) if row.verbs is EVERY else row for row in rows]


def _at_once(name: str, rows: list[Row]) -> list[Row]:
    """These rows, and one in which all those are set that are no more than variables."""

    def is_plain(row: Row) -> bool:
        others = replace(row, env={}, verbs=())
        return "train" in row.verbs != EVERY and others == Row(row.name, verbs=())

    joined = [row for row in rows if is_plain(row)]
    together = Row(f"{name}: these at once", {}, verbs=joined[0].verbs)
    for row in joined:
        assert all(together.env.get(key, value) == value for key, value in row.env.items())
        together.env.update(row.env)
    return [*(replace(row, joined=row in joined) for row in rows), together]


def _set(*names: str, value: str = "1") -> dict[str, str]:
    return dict.fromkeys(names, value)


THREADS = _in("train compare",
    Row("OpenMP's limit of threads", _set("OMP_THREAD_LIMIT"), verbs=(*EVERY,)),
    Row("OpenMP: threads, binding, places", {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "true",
        "OMP_PLACES": "cores", "OMP_SCHEDULE": "dynamic", "OMP_DYNAMIC": "TRUE"}),
    Row("GNU's and LLVM's OpenMP", {"GOMP_CPU_AFFINITY": "0", "GOMP_SPINCOUNT": "0",
        "KMP_AFFINITY": "compact", "KMP_BLOCKTIME": "0"}),
    Row("MKL: threads, instructions, reproducibility", {"MKL_NUM_THREADS": "2",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE", "MKL_DYNAMIC": "TRUE"}),
    Row("OpenBLAS: threads and core", {"OPENBLAS_NUM_THREADS": "2",
        "OPENBLAS_CORETYPE": "Haswell"}, verbs=(*EVERY,)),
    Row("BLIS, NumExpr, vecLib, TBB", _set("BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS", "TBB_NUM_THREADS")),
)  # fmt: skip
KERNELS = _in("train compare",
    Row("torch: instruction set of its kernels", {"ATEN_CPU_CAPABILITY": "default"}),
    Row("torch: another such set", {"ATEN_CPU_CAPABILITY": "avx2"}, verbs=(*EVERY,)),
    Row("oneDNN: instruction set and precision", {"ONEDNN_MAX_CPU_ISA": "SSE41",
        "DNNL_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "DNNL_DEFAULT_FPMATH_MODE": "BF16"}),
    Row("NumPy: features of the CPU", {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}),
    Row("NVIDIA's and torch's TF32", {"NVIDIA_TF32_OVERRIDE": "0",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}),
    Row("cuBLAS, cuDNN, CUDA", {"CUBLASLT_WORKSPACE_SIZE": "0", "CUDNN_DETERMINISTIC": "0",
        "CUDA_FORCE_PTX_JIT": "1", "CUDA_VISIBLE_DEVICES": ""}),
    Row("torch's compilers", {"TORCHDYNAMO_DISABLE": "1", "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "TRITON_INTERPRET": "1", "TORCH_COMPILE_DEBUG": "1"}),
    Row("scikit-learn, SciPy, joblib", {"SKLEARN_ASSUME_FINITE": "1",
        "SKLEARN_WORKING_MEMORY": "1", "SCIPY_ARRAY_API": "1", "LOKY_MAX_CPU_COUNT": "1"}),
    Row("torch's allocator", {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
        recorded=("environment.PYTORCH_CUDA_ALLOC_CONF",)),
    Row("memory that is not zero", {"MALLOC_PERTURB_": "165", "MALLOC_ARENA_MAX": "1"},
        recorded=("environment.MALLOC_ARENA_MAX", "environment.MALLOC_PERTURB_")),
    Row("glibc's tunables", {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"},
        recorded=("environment.GLIBC_TUNABLES",), verbs=("train", "compare")),
)  # fmt: skip
PYTHONS = _in("train compare doctor",
    Row("PYTHONPATH with another NumPy", {"PYTHONPATH": "{foreign}"},
        proof='[ -f "$PYTHONPATH/numpy/__init__.py" ]', verbs=(*EVERY,)),
    Row("PYTHONPATH with a foreign distribution", {"PYTHONPATH": "{distribution}"},
        proof='ls -d "$PYTHONPATH"/*.dist-info'),
    Row("PYTHONSAFEPATH", _set("PYTHONSAFEPATH"), verbs=(*EVERY,)),
    Row("PYTHONSTARTUP and PYTHONINSPECT", {"PYTHONSTARTUP": "{startup}", "PYTHONINSPECT": "1"},
        around="{command} </dev/null"),
    Row("PYTHONOPTIMIZE", _set("PYTHONOPTIMIZE", value="2")),
    Row("PYTHONUSERBASE with packages", {"PYTHONUSERBASE": "{foreign}"}),
    Row("PYTHONWARNINGS=error, developer's mode", {"PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1"}),
    Row("PYTHONHASHSEED", _set("PYTHONHASHSEED", value="77"),
        recorded=("environment.PYTHONHASHSEED",)),
    Row("PYTHONHASHSEED=random", {"PYTHONHASHSEED": "random"},
        recorded=("environment.PYTHONHASHSEED",)),
    Row("PYTHONUTF8=0, ASCII streams", {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C"}),
    Row("unbuffered, no bytecode, fault handler", _set("PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER")),
    Row("Python's allocator", {"PYTHONMALLOC": "malloc_debug"},
        recorded=("environment.PYTHONMALLOC",)),
    Row("another environment is active", {"VIRTUAL_ENV": "/nowhere", "CONDA_PREFIX": "/nowhere",
        "CONDA_DEFAULT_ENV": "base"}),
    Row("settings of pip, uv and poetry", {"PIP_USER": "1", "PIP_CONSTRAINT": "/nowhere",
        "PIP_TARGET": "/nowhere", "UV_PROJECT": "/nowhere", "POETRY_VIRTUALENVS_CREATE": "false"}),
)  # fmt: skip
SHELLS = _in("train doctor",
    Row("an empty environment", before="unset HOME USER LANG", around="env -i {command}",
        proof='[ -z "$HOME" ]', verbs=(*EVERY,)),
    Row("HOME and TMPDIR that do not exist", {"HOME": "/nowhere", "TMPDIR": "/nowhere"},
        verbs=(*EVERY,)),
    Row("ranks and seeds of other programs", {"RANK": "3", "LOCAL_RANK": "3", "SEED": "999",
        "PL_GLOBAL_SEED": "999", "SLURM_JOB_ID": "4711", "WORLD_SIZE": "1"}),
    Row("a number of processes that torchrun did not start", {"WORLD_SIZE": "8"},
        verbs=("train", "resume"), refused="WORLD_SIZE is 8, so several processes were started"),
    Row("a number of processes left behind", {"WORLD_SIZE": "8", "OMPI_COMM_WORLD_SIZE": "4"},
        verbs=("verify", "compare", "doctor")),
    Row("variables of CI and of batch systems", {"CI": "true", "GITHUB_ACTIONS": "true",
        "PBS_JOBID": "7", "LSB_JOBID": "7", "OMPI_COMM_WORLD_RANK": "1", "JUPYTER_TOKEN": "x",
        "BASH_ENV": "/nowhere", "ENV": "/nowhere"}, verbs=("train", "doctor")),
    Row("another user's name", {"USER": "somebody", "LOGNAME": "somebody", "USERNAME": "x"}),
    Row("another time zone and language", {"TZ": "Pacific/Chatham", "LC_ALL": "C",
        "LANGUAGE": "de"}),
    Row("proxies", {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}),
    Row("settings of tqdm", {"TQDM_DISABLE": "1", "TQDM_MININTERVAL": "never"}),
    Row("colours", {"NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "20"}),
    Row("matplotlib's back end and file", {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": "{rc}"}),
    Row("a matplotlibrc in the configuration", {"MPLCONFIGDIR": "{rc}"},
        proof='grep -q usetex "$MPLCONFIGDIR/matplotlibrc"', verbs=(*EVERY,)),
    Row("umask 077", before="umask 077", proof='[ "$(umask)" = 0077 ]'),
    Row("few open files", before="ulimit -n 24", proof='[ "$(ulimit -n)" = 24 ]'),
    Row("a small stack, no core files", before="ulimit -s 1024; ulimit -c 0",
        proof='[ "$(ulimit -s)" = 1024 ]'),
    Row("one processor", around="taskset -c 0 {command}", proof='[ "$(taskset -c 0 nproc)" = 1 ]'),
    Row("a low priority", around="nice -n 19 {command}", proof='[ "$(nice -n 19 nice)" = 19 ]'),
    Row("a session of its own", around="setsid --wait {command}", proof="command -v setsid"),
    Row("a hang-up that is ignored", around="nohup {command}", proof="command -v nohup"),
    Row("a library in front of all others", {"LD_PRELOAD": "libdl.so.2"},
        recorded=("environment.LD_PRELOAD",)),
    Row("another folder of libraries", {"LD_LIBRARY_PATH": "/nowhere"},
        recorded=("environment.LD_LIBRARY_PATH",)),
    Row("signals that are ignored", before="trap '' HUP USR1 USR2 INT", proof="trap | grep -q HUP"),
)  # fmt: skip
STREAMS = [
    Row("standard input closed", around="{command} <&-", proof="true"),
    Row("standard output closed", around="{command} >&-", proof="true",
        verbs=("train", "resume", "verify")),
    Row("standard error closed", around="{command} 2>&-", proof="true"),
    Row("a disk behind standard error that is full", around="{command} 2>/dev/full",
        proof="[ -c /dev/full ]"),
    Row("all streams closed", around="{command} <&- >&- 2>&-", proof="true",
        verbs=("train", "resume", "verify")),
    Row("a reader that goes away", around="{command} | head -n 1", proof="command -v head",
        verbs=("train", "resume")),
    Row("a reader that was never there", around="{command} | true", proof="true",
        verbs=("train", "resume", "verify")),
    Row("a disk behind standard output that is full", around="{command} >/dev/full",
        proof="[ -c /dev/full ]", verbs=("compare", "doctor"),
        refused="No space left on device", exit_code=1),
]  # fmt: skip
GIT = _in("train compare doctor",
    Row("a hook's repository", {"GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}",
        "GIT_INDEX_FILE": "{other}/.git/index", "GIT_PREFIX": "x/"},
        proof='git rev-parse --git-dir | grep -q "$GIT_DIR"', verbs=(*EVERY,)),
    Row("git's configuration by variables", {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0":
        "color.ui", "GIT_CONFIG_VALUE_0": "always", "GIT_CONFIG_KEY_1": "core.fsmonitor",
        "GIT_CONFIG_VALUE_1": "/bin/false"}, proof='[ "$(git config color.ui)" = always ]'),
    Row("git's configuration by a file", {"GIT_CONFIG_GLOBAL": "{gitconfig}"},
        proof='[ "$(git config color.ui)" = always ]'),
    Row("git's configuration at home", {"HOME": "{home}"},
        proof='[ "$(git config color.ui)" = always ]'),
    Row("git traces and pagers", {"GIT_TRACE": "1", "GIT_PAGER": "/bin/false",
        "GIT_EXTERNAL_DIFF": "/bin/false"}),
)  # fmt: skip
FAMILIES = {
    "threads and CPU libraries": _at_once("CPU libraries", THREADS),
    "kernels, precision, allocators": _at_once("kernels", KERNELS),
    "Python, pip, uv, conda": _at_once("Python", PYTHONS),
    "the shell, its limits, other programs' settings": _at_once("other programs", SHELLS),
    "closed, full and odd streams": STREAMS,
    "git's variables and configuration": GIT,
}
ROWS = [row for rows in FAMILIES.values() for row in rows]
