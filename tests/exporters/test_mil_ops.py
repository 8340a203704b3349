"""The evaluator's operators against coremltools' own inference of their values on constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from exporters.formats.coreml.quiet import load_coremltools
from exporters.verification.mil.ops import OPS
from mobile_llm.errors import UnsupportedModel

load_coremltools()

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import Function  # noqa: E402

X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
Y = np.linspace(5, -4, 24, dtype=np.float32).reshape(2, 3, 4)
ROW = np.array([0.5, -1, 2, 1.5], np.float32)
POSITIVE = np.abs(X) + np.float32(0.25)
INTS = np.arange(24, dtype=np.int32).reshape(2, 3, 4) - 7
BOOLS = X > 0.3
KEYS, VALUES = X[:, :2] / 3, Y[:, :2] / 4
SEEN = np.array([[True, False], [True, True], [True, True]])
INTEGERS = np.array([[-127, 5, 0, 90], [3, -1, 127, -60]], np.int8)


@dataclass
class Case:
    """An operator with constant inputs; `note` tells cases of the same operator apart."""

    op: str
    arguments: dict[str, Any]
    note: str = ""
    target: Any = field(default=ct.target.iOS16, repr=False)

    @property
    def id(self) -> str:
        return f"{self.op} {self.note}".strip()


def _case(op: str, note: str = "", **arguments: Any) -> Case:
    return Case(op, arguments, note)


ON_FLOATS = ("identity", "abs", "exp", "square", "tanh", "sigmoid", "relu", "silu", "erf", "sin", "cos", "sign")
ARITHMETIC = ("add", "sub", "mul", "real_div", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_l2_norm", "reduce_sum_square")

CASES = [
    *(_case(op, x=X) for op in ON_FLOATS),
    *(_case(op, x=X * np.float32(1.3)) for op in ("floor", "ceil")),
    *(_case(op, x=POSITIVE) for op in ("sqrt", "rsqrt", "log", "inverse")),
    *(_case(op, "with epsilon", x=POSITIVE, epsilon=np.float32(0.5)) for op in ("rsqrt", "log", "inverse")),
    *(_case(op, x=X, y=Y) for op in ARITHMETIC),
    *(_case(op, "broadcast", x=X, y=ROW) for op in ARITHMETIC),
    *(_case(op, "integers", x=INTS, y=np.int32(3)) for op in ("add", "sub", "mul", "floor_div", "mod")),
    *(_case(op, x=X, y=ROW) for op in ("floor_div", "mod")),
    _case("pow", x=POSITIVE, y=ROW),
    *(_case(op, x=INTS, y=INTS[:, ::-1].copy()) for op in COMPARISONS),
    *(_case(op, x=BOOLS, y=~BOOLS[:, ::-1]) for op in ("logical_and", "logical_or")),
    _case("logical_not", x=BOOLS),
    _case("shape", x=X),
    *(_case(op, x=X, axes=[-1], keep_dims=True) for op in REDUCTIONS),
    *(_case("reduce_argmax", note, x=X, axis=1, keep_dims=kept) for note, kept in (("", False), ("kept", True))),
    *(_case(op, "two axes", x=X, axes=[0, 2], keep_dims=False) for op in REDUCTIONS),
    *(_case(op, "all axes", x=X) for op in REDUCTIONS),
    _case("cast", "to int32", x=X * np.float32(1.7), dtype="int32"),
    _case("cast", "to bool", x=INTS, dtype="bool"),
    _case("cast", "to fp32", x=INTS, dtype="fp32"),
    _case("cast", "to fp16", x=INTS, dtype="fp16"),
    _case("linear", x=X[0], weight=Y[1], bias=ROW[:3]),
    _case("linear", "no bias", x=X[0], weight=Y[1]),
    _case("matmul", x=X, y=Y[0].T.copy()),
    _case("matmul", "transposed", x=X, y=Y, transpose_y=True),
    _case("matmul", "the other transposed", x=X, y=Y, transpose_x=True),
    _case("layer_norm", x=X, axes=[-1], gamma=ROW, beta=ROW[::-1].copy(), epsilon=np.float32(0.1)),
    _case("layer_norm", "two axes", x=X, axes=[1, 2], epsilon=np.float32(1e-5)),
    _case("softmax", x=X, axis=-1),
    _case("softmax", "first axis", x=X, axis=0),
    *(_case("gelu", mode.lower(), x=X, mode=mode) for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")),
    _case("gather", x=Y, indices=np.array([[1, 0], [1, 1]], np.int32), axis=0),
    _case("gather", "from the end", x=Y, indices=np.array([-1, 0], np.int32), axis=-1),
    _case("reshape", x=X, shape=[4, -1]),
    _case("reshape", "a size kept", x=X, shape=[0, -1, 2]),
    _case("transpose", x=X, perm=[2, 0, 1]),
    _case("expand_dims", x=X, axes=[0, -1]),
    _case("squeeze", x=X[:, :1], axes=[1]),
    _case("squeeze", "all", x=X[:1, :, :1]),
    _case("concat", values=[X, Y], axis=1),
    _case("stack", values=[X, Y], axis=1),
    _case("split", "in two", x=X, num_splits=2, axis=-1),
    _case("split", "by sizes", x=X, split_sizes=[1, 2], axis=1),
    _case("slice_by_index", x=X, begin=[0, 1, 0], end=[2, 3, 3]),
    _case("slice_by_index", "strides", x=X, begin=[0, 0, 0], end=[2, 3, 4], stride=[1, 2, 3]),
    _case("slice_by_index", "backwards", x=X, begin=[0, 0, 3], end=[2, 3, 0], stride=[1, 1, -2]),
    _case("slice_by_index", "backwards twice", x=X, begin=[0, 2, 3], end=[2, 0, 0], stride=[1, -1, -2]),
    _case("slice_by_index", "from the end", x=X, begin=[-1, -2, 0], end=[2, 3, -1]),
    _case(
        "slice_by_index",
        "masks",
        x=X,
        begin=[1, 1, 1],
        end=[1, 1, 1],
        begin_mask=[False, False, True],
        end_mask=[False, True, False],
        squeeze_mask=[True, False, False],
    ),
    *(
        Case("slice_update", {"x": X, **arguments}, note, ct.target.iOS18)
        for note, arguments in (
            ("", {"update": Y[:, :1, 1:], "begin": [0, 1, 1], "end": [2, 2, 4]}),
            ("strides", {"update": Y[:, 1:, ::2], "begin": [0, 0, 0], "end": [2, 3, 4], "stride": [1, 2, 2]}),
            ("backwards", {"update": Y[:, :, :3], "begin": [0, 0, 3], "end": [2, 3, 0], "stride": [1, 1, -1]}),
            (
                "masks",
                {
                    "update": Y[0, 1:],
                    "begin": [1, 1, 1],
                    "end": [1, 1, 1],
                    "begin_mask": [False, False, True],
                    "end_mask": [False, True, True],
                    "squeeze_mask": [True, False, False],
                },
            ),
        )
    ),
    *(
        Case(
            "scaled_dot_product_attention",
            {"query": X / 2, "key": KEYS, "value": VALUES, **mask},
            note,
            ct.target.iOS18,
        )
        for note, mask in (
            ("", {}),
            ("mask of floats", {"attn_mask": np.array([[0, -9], [0.5, 0], [0, 1]], np.float32)}),
            ("mask of truths", {"attn_mask": SEEN}),
        )
    ),
    _case("slice_by_size", x=X, begin=[0, 1, 1], size=[2, -1, 2]),
    _case("tile", x=X, reps=[1, 2, 3]),
    _case("fill", shape=[2, 3], value=np.float32(1.5)),
    _case("range_1d", "integers", start=np.int32(2), end=np.int32(11), step=np.int32(3)),
    _case("range_1d", "floats", start=np.float32(0), end=np.float32(2), step=np.float32(0.5)),
    _case("reduce_argmax", x=X, axis=-1, keep_dims=False),
    _case("clip", x=X, alpha=np.float32(-1), beta=np.float32(0.7)),
    _case("select", cond=BOOLS, a=X, b=Y),
    *(
        _case(
            "constexpr_affine_dequantize",
            note,
            quantized_data=INTEGERS,
            zero_point=zero_point,
            scale=np.array([0.5, 0.25], np.float32),
            axis=np.int32(0),
        )
        for note, zero_point in (("one zero point", np.int8(0)), ("zero points", np.array([3, -4], np.int8)))
    ),
    Case(
        "constexpr_blockwise_shift_scale",
        {"data": INTEGERS, "scale": np.array([[0.5, 2], [0.25, 1]], np.float32)},
        target=ct.target.iOS18,
    ),
    Case(
        "constexpr_blockwise_shift_scale",
        {"data": INTEGERS, "scale": np.array([[0.5], [0.25]], np.float32), "offset": np.array([[3], [-4]], np.int8)},
        "offsets",
        ct.target.iOS18,
    ),
]


def _built(case: Case) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The operator's parameters as a file states them (defaults filled in), and what it gives."""
    with Function({}, opset_version=case.target):
        result = getattr(mb, case.op)(**case.arguments)
    results = list(result) if isinstance(result, (list, tuple)) else [result]
    op = results[0].op
    stated = {n: [v.val for v in vs] if isinstance(vs, (list, tuple)) else vs.val for n, vs in op.inputs.items() if vs}
    if case.op.startswith("constexpr"):
        return stated, [op.materialized_val_inference()]
    return stated, [var.val for var in results]


def _expected(case: Case, values: list[Any]) -> list[Any]:
    """For the one operator whose value coremltools does not infer, the formula of its documentation."""
    if case.op == "silu":
        x = case.arguments["x"].astype(np.float64)
        return [x / (1 + np.exp(-x))]
    return values


def _tensor(value: Any) -> Any:
    if isinstance(value, list):
        return [_tensor(v) for v in value]
    return value if isinstance(value, str) else torch.from_numpy(np.array(value))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_agrees_with_coremltools(case: Case) -> None:
    stated, values = _built(case)
    found = OPS[case.op](**{name: _tensor(value) for name, value in stated.items()})
    results = list(found) if isinstance(found, (list, tuple)) else [found]
    expected = _expected(case, values)
    assert len(results) == len(expected)
    for result, value in zip(results, expected):
        assert value is not None
        assert tuple(result.shape) == np.shape(value)
        np.testing.assert_allclose(
            result.numpy().astype(np.float64), np.asarray(value, np.float64), rtol=1e-5, atol=1e-5
        )


def test_interleaved_concat_takes_turns() -> None:
    result = OPS["concat"](
        values=[torch.tensor([[1, 2]]), torch.tensor([[3, 4]])], axis=torch.tensor(1), interleave=True
    )
    assert result.tolist() == [[1, 3, 2, 4]]


def test_every_operator_of_the_table_has_a_case() -> None:
    """But for those whose values coremltools does not infer: see below, test_modules.py and test_mil_states.py."""
    assert {case.op for case in CASES} | {"conv", "lstm", "read_state", "write_state"} == set(OPS)


@pytest.mark.parametrize(("groups", "stride", "gap", "pad"), [(1, 1, 1, (0, 0, 0, 0)), (2, 2, 3, (1, 0, 2, 3))])
def test_convolution_is_a_sum_over_places_and_channels(
    groups: int, stride: int, gap: int, pad: tuple[int, ...]
) -> None:
    """By the definition: loops over outputs, of an image padded with zeros above, below, left and right."""
    image = np.sin(np.arange(4 * 7 * 8, dtype=np.float64)).reshape(4, 7, 8)
    weight = np.cos(np.arange(6 * 4 // groups * 3 * 2, dtype=np.float64)).reshape(6, 4 // groups, 3, 2)
    bias = np.arange(6.0)
    found = OPS["conv"](
        *(torch.from_numpy(x).float() for x in (image[None], weight, bias)),
        pad_type="custom",
        strides=torch.tensor([stride, stride]),
        pad=torch.tensor(pad),
        dilations=torch.tensor([gap, 1]),
        groups=torch.tensor(groups),
    )[0].numpy()
    padded = np.pad(image, [(0, 0), pad[:2], pad[2:]])
    inputs, outputs = 4 // groups, 6 // groups
    for channel, row, column in np.ndindex(found.shape):
        first = channel // outputs * inputs
        seen = padded[first : first + inputs, row * stride :: gap, column * stride :][:, :3, :2]
        assert found[channel, row, column] == pytest.approx((seen * weight[channel]).sum() + bias[channel], abs=1e-4)
    assert found.shape == (6, (padded.shape[1] - 2 * gap - 1) // stride + 1, (padded.shape[2] - 2) // stride + 1)


def test_convolution_padded_to_the_same_size_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="conv with pad_type 'same'"):
        OPS["conv"](torch.ones(1, 1, 3), torch.ones(1, 1, 3), pad_type="same")


def test_gather_with_batch_dimensions_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="gather with batch_dims"):
        OPS["gather"](torch.ones(2, 3), torch.zeros(2, 1), axis=torch.tensor(1), batch_dims=torch.tensor(1))
